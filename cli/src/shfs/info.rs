//! `minicache shfs info`: a volume in numbers, in the words of the original's `shfs_admin -i`.

use std::io::Write;
use std::path::PathBuf;

use minicache::cache::shfs::format::{Entry, VERSION};
use minicache::cache::shfs::{Content, HashFunction, Volume};
use serde::Serialize;

use super::image::Image;
use super::text::{date, hex, rfc3339};
use crate::terminal::{Output, printable};

#[derive(Serialize)]
struct JsonVolume {
    version: String,
    name: String,
    uuid: String,
    created: Option<String>,
    created_unix_s: u64,
    chunk_bytes: u32,
    chunks: u64,
    hash_function: String,
    digest_bytes: usize,
    table: JsonTable,
    metadata_chunks: u64,
    available_chunks: u64,
    stripe_bytes: u32,
    stripe_mode: String,
    members: Vec<JsonMember>,
    objects: usize,
    links: usize,
    content_bytes: u64,
    default_object: Option<String>,
    damaged_entries: u64,
}

#[derive(Serialize)]
struct JsonTable {
    chunk: u64,
    chunks: u64,
    backup_chunk: Option<u64>,
    buckets: u32,
    entries_per_bucket: u32,
    entries: u32,
}

#[derive(Serialize)]
struct JsonMember {
    uuid: String,
    image: String,
}

/// Describes the volume that the images hold.
pub fn run(images: &[PathBuf], json: bool, output: &mut Output) -> anyhow::Result<()> {
    let volume = Image::open(images)?.volume;
    let described = describe(&volume, images);
    if json {
        serde_json::to_writer_pretty(&mut *output, &described)?;
        writeln!(output)?;
    } else {
        write_text(&described, &volume, output)?;
    }
    Ok(())
}

fn describe(volume: &Volume, images: &[PathBuf]) -> JsonVolume {
    let table = &volume.table;
    let copies = if table.backup_chunk.is_some() { 2 } else { 1 };
    let metadata_chunks = table.chunks.saturating_mul(copies).saturating_add(2);
    let (mut links, mut content_bytes) = (0, 0u64);
    for (_, object) in volume.directory.iter() {
        match object.content {
            Content::Extent { length_bytes, .. } => content_bytes = content_bytes.saturating_add(length_bytes),
            Content::Link(_) => links += 1,
        }
    }
    let members = volume.members.iter().zip(volume.layout.members()).map(|(uuid, member)| JsonMember {
        uuid: uuid.to_string(),
        image: images[member.disk].to_string_lossy().into_owned(),
    });
    let default = volume.directory.default_object().map(|id| volume.directory.get(id));
    JsonVolume {
        version: format!("{}.{:02}", VERSION[0], VERSION[1]),
        name: volume.name.clone(),
        uuid: volume.uuid.to_string(),
        created: rfc3339(volume.created_unix_s),
        created_unix_s: volume.created_unix_s,
        chunk_bytes: volume.chunk_bytes,
        chunks: volume.vol_size,
        hash_function: volume.hash_function.to_string(),
        digest_bytes: volume.digest_bytes,
        table: JsonTable {
            chunk: table.first_chunk,
            chunks: table.chunks,
            backup_chunk: table.backup_chunk,
            buckets: table.bucket_count,
            entries_per_bucket: table.entries_per_bucket,
            entries: table.entries,
        },
        metadata_chunks,
        available_chunks: volume.vol_size.saturating_sub(metadata_chunks),
        stripe_bytes: volume.layout.striping().stripe_bytes(),
        stripe_mode: volume.layout.striping().mode().to_string(),
        members: members.collect(),
        objects: volume.directory.len(),
        links,
        content_bytes,
        default_object: default.map(|object| match object.name {
            [] => format!("?{}", hex(object.digest)),
            name => printable(name),
        }),
        damaged_entries: volume.damaged_entries,
    }
}

fn write_text(described: &JsonVolume, volume: &Volume, output: &mut Output) -> std::io::Result<()> {
    let chunk_kib = u128::from(described.chunk_bytes / 1024);
    let kib = |chunks: u64| u128::from(chunks) * chunk_kib;
    let hash_function = match volume.hash_function {
        HashFunction::Manual => "Manual".to_string(),
        other => other.to_string(),
    };
    let table = &described.table;
    let copy = table.backup_chunk.map_or("No copy".to_string(), |chunk| format!("Copy from chunk {chunk} on"));
    let mode = match described.stripe_mode.as_str() {
        "combined" => "Combined",
        _ => "Independent",
    };
    let mut line = |label: &str, value: String| writeln!(output, "{}", format!("{label:20}{value}").trim_end());
    line("SHFS version:", described.version.clone())?;
    line("Volume name:", described.name.clone())?;
    line("Volume UUID:", described.uuid.clone())?;
    line("Creation date:", format!("{} UTC", date(described.created_unix_s)))?;
    line("Chunksize:", format!("{chunk_kib} KiB"))?;
    line("Volume size:", format!("{} KiB", kib(described.chunks)))?;
    line("Hash function:", format!("{hash_function} ({} bits)", described.digest_bytes * 8))?;
    line("Hash table:", format!("{} entries in {} buckets", table.entries, table.buckets))?;
    line("", format!("{} chunks ({} KiB)", table.chunks, kib(table.chunks)))?;
    line("", copy)?;
    line("Entry size:", format!("{} Bytes", size_of::<Entry>()))?;
    line("Metadata total:", format!("{} chunks", described.metadata_chunks))?;
    line("Available space:", format!("{} chunks", described.available_chunks))?;
    line("", String::new())?;
    line("Member stripe size:", format!("{} KiB", described.stripe_bytes / 1024))?;
    line("Member stripe mode:", mode.to_string())?;
    line("Volume members:", format!("{} device(s)", described.members.len()))?;
    for (number, member) in described.members.iter().enumerate() {
        line(
            &format!("  Member {number:2} UUID:"),
            format!("{} ({})", member.uuid, printable(member.image.as_bytes())),
        )?;
    }
    line("", String::new())?;
    line("Objects:", format!("{}, {} of them links", described.objects, described.links))?;
    line("Content:", format!("{} bytes", described.content_bytes))?;
    line("Default object:", described.default_object.clone().unwrap_or_else(|| "none".to_string()))?;
    if described.damaged_entries > 0 {
        line("Damaged entries:", described.damaged_entries.to_string())?;
    }
    Ok(())
}
