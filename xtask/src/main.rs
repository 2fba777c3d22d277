//! Builds, test beds and the full test run.
#![forbid(unsafe_code)]

fn main() {}
