//! Commands about the volume as a whole, its disks and the cache before them.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;

use super::network::group;
use super::{Command, Context, Definition, Output, Step, no_arguments, once, steps};
use crate::cache::shfs::Volume;
use crate::shell::machine::MountState;
use crate::shell::text::{Date, Size};

const NOT_MOUNTED: &str = "No filesystem mounted";

pub(super) const COMMANDS: &[Definition] = &[
    Definition {
        name: "lsbd",
        arguments: "",
        summary: "the disks",
        start: |arguments, _| {
            no_arguments(arguments)?;
            once(|context, out| {
                for disk in context.machine.disks() {
                    let _ = writeln!(
                        out,
                        " {}: block size = {} bytes, size = {} bytes{}{}",
                        disk.number,
                        disk.geometry.sector_bytes,
                        disk.geometry.bytes(),
                        if disk.geometry.read_only { ", read-only" } else { "" },
                        if disk.in_use { ", in use" } else { "" },
                    );
                }
                0
            })
        },
    },
    Definition {
        name: "mount",
        arguments: "[DISK]...",
        summary: "shows what is mounted, or mounts the volume of the disks (numbers of 'lsbd', or 'all')",
        start: |arguments, context| {
            if arguments.is_empty() {
                return once(show_mount);
            }
            if context.machine.served().is_some() {
                return Err("A filesystem is already mounted\nPlease unmount it first (umount), or use remount".into());
            }
            let disks = disk_numbers(arguments, context)?;
            context.machine.mount(&disks);
            wait_for_mount()
        },
    },
    Definition {
        name: "umount",
        arguments: "[-f]",
        summary: "serves nothing any more; -f even while objects are open (they are finished)",
        start: |arguments, _| {
            let force = match arguments {
                [] => false,
                [flag] if flag == "-f" => true,
                _ => return Err("usage: umount [-f]".into()),
            };
            once(move |context, out| {
                if context.machine.served().is_none() {
                    let _ = writeln!(out, "{NOT_MOUNTED}");
                    return -1;
                }
                match context.machine.unmount(force) {
                    Ok(()) => 0,
                    Err(open) => {
                        let _ = writeln!(
                            out,
                            "Could not unmount: {open} objects are open (lsof lists them); -f does it all the same"
                        );
                        -16
                    }
                }
            })
        },
    },
    Definition {
        name: "remount",
        arguments: "",
        summary: "reads the volume anew and serves that; requests under way finish on the old one",
        start: |arguments, context| {
            no_arguments(arguments)?;
            if context.machine.served().is_none() {
                return Err(NOT_MOUNTED.into());
            }
            context.machine.mount(&[]);
            wait_for_mount()
        },
    },
    Definition {
        name: "shfs-info",
        arguments: "",
        summary: "the volume",
        start: |arguments, _| {
            no_arguments(arguments)?;
            once(|context, out| match context.machine.served() {
                None => {
                    let _ = writeln!(out, "{NOT_MOUNTED}");
                    -1
                }
                Some(served) => {
                    write_volume(&served.volume, out);
                    0
                }
            })
        },
    },
    Definition {
        name: "cache-info",
        arguments: "",
        summary: "the chunk cache",
        start: |arguments, _| {
            no_arguments(arguments)?;
            once(|context, out| {
                let cache = context.machine.http().cache();
                let _ = writeln!(out, "{:<28} {:>12}", "capacity", Size(cache.capacity_bytes() as u64));
                let _ = writeln!(out, "{:<28} {:>12}", "pinned", Size(cache.pinned_bytes() as u64));
                group(context.machine.stats(), out, "cache_");
                group(context.machine.stats(), out, "copied_");
                0
            })
        },
    },
    Definition {
        name: "flush",
        arguments: "",
        summary: "drops what nobody uses from the cache",
        start: |arguments, _| {
            no_arguments(arguments)?;
            once(|context, out| {
                let chunks = context.machine.flush_cache();
                let _ = writeln!(out, "{chunks} chunks dropped");
                0
            })
        },
    },
];

fn disk_numbers(arguments: &[String], context: &mut Context<'_>) -> Result<Vec<usize>, String> {
    if arguments.len() == 1 && arguments[0] == "all" {
        return Ok(Vec::new());
    }
    let disks = context.machine.disks().len();
    let mut numbers = Vec::new();
    for argument in arguments {
        match argument.parse() {
            Ok(number) if number < disks && !numbers.contains(&number) => numbers.push(number),
            Ok(number) if number < disks => return Err("Found duplicates in the list".into()),
            _ => {
                return Err(alloc::format!(
                    "Invalid argument '{argument}': a disk is a number below {disks} ('lsbd' lists them)"
                ));
            }
        }
    }
    Ok(numbers)
}

fn wait_for_mount() -> Result<alloc::boxed::Box<dyn Command>, String> {
    steps(|context, out| match context.machine.mount_state() {
        MountState::Busy => Step::Wait,
        MountState::Done | MountState::Idle => Step::Done(show_mount(context, out)),
        MountState::Failed(error) => {
            let _ = writeln!(out, "Could not mount: {error}");
            Step::Done(-1)
        }
    })
}

fn show_mount(context: &mut Context<'_>, out: &mut Output) -> i32 {
    let Some(served) = context.machine.served() else {
        let _ = writeln!(out, "{NOT_MOUNTED}\n\nUsage: mount DISK... | mount all");
        return -1;
    };
    let volume = &served.volume;
    let disks: Vec<String> = volume.layout.members().iter().map(|member| alloc::format!("{}", member.disk)).collect();
    let _ = writeln!(
        out,
        "{} on / type shfs (ro), volume {}, {} objects",
        disks.join(","),
        volume.name,
        volume.directory.len()
    );
    for skipped in &volume.skipped_disks {
        let _ = writeln!(out, "{skipped}");
    }
    for damage in &volume.damages {
        let _ = writeln!(out, "{damage}");
    }
    if volume.damaged_entries > volume.damages.len() as u64 {
        let _ = writeln!(out, "... and {} more damaged entries", volume.damaged_entries - volume.damages.len() as u64);
    }
    0
}

fn write_volume(volume: &Volume, out: &mut Output) {
    let chunk_bytes = u64::from(volume.chunk_bytes);
    let table = &volume.table;
    let striping = volume.layout.striping();
    let _ = writeln!(out, "SHFS version:       2.01");
    let _ = writeln!(out, "Volume name:        {}", volume.name);
    let _ = writeln!(out, "Volume UUID:        {}", volume.uuid);
    let _ = writeln!(out, "Creation date:      {}", Date(volume.created_unix_s));
    let _ = writeln!(out, "Chunksize:          {} KiB", chunk_bytes / 1024);
    let _ = writeln!(out, "Volume size:        {} KiB", u128::from(volume.vol_size) * u128::from(chunk_bytes) / 1024);
    let _ = writeln!(out, "Hash function:      {} ({} bits)", volume.hash_function, volume.digest_bytes * 8);
    let _ = writeln!(out, "Hash table:         {} entries in {} buckets", table.entries, table.bucket_count);
    let _ = writeln!(out, "                    {} chunks ({} KiB)", table.chunks, table.chunks * chunk_bytes / 1024);
    match table.backup_chunk {
        Some(chunk) => {
            let _ = writeln!(out, "                    Copy at chunk {chunk}");
        }
        None => {
            let _ = writeln!(out, "                    No copy");
        }
    }
    let _ = writeln!(
        out,
        "Objects:            {} ({} in memory)",
        volume.directory.len(),
        Size(volume.directory.memory_bytes() as u64)
    );
    let _ = writeln!(out);
    let _ = writeln!(out, "Member stripe size: {} KiB", striping.stripe_bytes() / 1024);
    let _ = writeln!(out, "Member stripe mode: {}", striping.mode());
    let _ = writeln!(out, "Volume members:     {} device(s)", volume.members.len());
    for (i, (uuid, member)) in volume.members.iter().zip(volume.layout.members()).enumerate() {
        let _ = writeln!(out, "  Member {i:2} Disk:   {}", member.disk);
        let _ = writeln!(out, "            UUID:   {uuid}");
        let _ = writeln!(out, "            Block size: {}", member.geometry.sector_bytes);
    }
}
