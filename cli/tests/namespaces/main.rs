//! `minicache serve --tap` and `minicache bridge` in network namespaces, where Linux's TCP, curl and wrk are the judges.
//!
//! They need root and a few programs; where those are missing each test says why it is not run.

mod bed;
mod bridge;
mod clean;
mod gone;
mod impaired;
mod load;
