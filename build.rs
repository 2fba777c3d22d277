//! How the kernel is linked: by our script, with nothing of the host's. Other programs are linked as usual.

use std::env;
use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=linker");
    if env::var_os("CARGO_FEATURE_KERNEL").is_none() {
        return;
    }
    let architecture = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets it");
    let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let script = Path::new(&root).join("linker").join(format!("{architecture}.ld"));
    let script = format!("-T{}", script.display());
    let arguments = [
        script.as_str(),
        // The texts of log messages, which stay in the ELF: defmt's build finds a place for this script.
        "-Tdefmt.x",
        "-static",
        "-no-pie",
        "-nostartfiles",
        "-nostdlib",
        "-Wl,--build-id=sha1,--gc-sections,-z,norelro,--no-eh-frame-hdr,-z,noexecstack",
    ];
    for argument in arguments {
        println!("cargo:rustc-link-arg-bin=minicache-kernel={argument}");
    }
}
