//! Tests of the whole engine: packets by hand (`packets`), loss recovery (`loss`), transfers to smoltcp's TCP over a bad
//! link (`transfer`), and hostile segments (`hostile`).

mod devices;
mod hostile;
mod link;
mod loss;
mod packets;
mod transfer;
mod world;
