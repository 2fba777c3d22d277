//! Tests of the whole engine: packets by hand, each test one rule (`handshake`,
//! `requests`, `windows`, `acceptability`, `ends`, `transmitting`), loss recovery (`loss`), transfers to smoltcp's TCP over a bad
//! link (`transfer`), and hostile segments (`hostile`).

mod acceptability;
mod devices;
mod ends;
mod handshake;
mod hostile;
mod link;
mod loss;
mod requests;
mod transfer;
mod transmitting;
mod windows;
mod world;
