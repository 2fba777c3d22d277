//! One parse per frame, demultiplexing to the serving TCP or to the control plane.
//!
//! What may enter this room: Ethernet, IPv4, IPv6, and the control plane on a smoltcp `Interface` (ARP, ND, ICMP, and the
//! TCP of µShell). It knows no HTTP.
