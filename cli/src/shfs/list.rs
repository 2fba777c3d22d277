//! `minicache shfs ls`: the objects of a volume, in the order of its table.

use std::io::Write;
use std::path::PathBuf;

use minicache::cache::shfs::{Content, Host, Link, LinkKind, Object};
use serde::Serialize;

use super::image::Image;
use super::text::{date, hex, rfc3339};
use crate::terminal::{Output, printable};

/// An object in JSON.
#[derive(Serialize)]
struct JsonObject {
    name: String,
    /// Only where the name is not UTF-8, and so `name` is not the whole truth.
    #[serde(skip_serializing_if = "Option::is_none")]
    name_hex: Option<String>,
    digest: String,
    mime: String,
    created: Option<String>,
    created_unix_s: u64,
    hidden: bool,
    default: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    extent: Option<JsonExtent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<JsonLink>,
}

#[derive(Serialize)]
struct JsonExtent {
    chunk: u64,
    offset_bytes: u64,
    length_bytes: u64,
    chunks: u64,
}

#[derive(Serialize)]
struct JsonLink {
    kind: String,
    url: String,
    host_kind: &'static str,
    host: String,
    port: u16,
    path: String,
}

/// Lists the volume that the images hold.
pub fn run(images: &[PathBuf], json: bool, output: &mut Output) -> anyhow::Result<()> {
    let volume = Image::open(images)?.volume;
    let objects = volume.directory.iter().map(|(_, object)| object);
    if json {
        let objects: Vec<_> = objects.map(|object| json_object(&object, volume.chunk_bytes)).collect();
        serde_json::to_writer_pretty(&mut *output, &objects)?;
        writeln!(output)?;
        return Ok(());
    }
    // The columns of the original's `shfs_admin -l`, and the length in bytes.
    let width = if volume.digest_bytes > 32 { 128 } else { 64 };
    let [digest, place, size, bytes] = ["Hash", "Loc (chk)", "Size (chk)", "Bytes"];
    let [flags, kind, mime, added, name] = ["Flags", "LType", "MIME", "Added (UTC)", "Name"];
    writeln!(output, "{digest:width$} {place:>12} {size:>12} {bytes:>14} {flags} {kind} {mime:24} {added:16} {name}")?;
    for object in objects {
        write!(output, "{:width$} ", hex(object.digest))?;
        match object.content {
            Content::Extent { chunk, offset_bytes, length_bytes } => {
                let chunks = chunks(offset_bytes, length_bytes, volume.chunk_bytes);
                write!(output, "{chunk:12} {chunks:12} {length_bytes:14} ")?;
            }
            Content::Link(_) => write!(output, "{:40} ", "")?,
        }
        let link = if let Content::Link(link) = object.content { Some(link) } else { None };
        let flag = |set, letter| if set { letter } else { '-' };
        let kind = match link.map(|link| link.kind) {
            None => "",
            Some(LinkKind::Redirect) => "redir",
            Some(LinkKind::Raw) => "raw",
            Some(LinkKind::Auto) => "auto",
        };
        write!(
            output,
            "  {}{}{} {kind:>5} {:24} {:16} {}",
            flag(link.is_some(), 'L'),
            flag(object.is_default(), 'D'),
            flag(object.is_hidden(), 'H'),
            printable(object.mime),
            date(object.created_unix_s),
            printable(object.name),
        )?;
        match link {
            Some(link) => writeln!(output, " -> {}", url(&link))?,
            None => writeln!(output)?,
        }
    }
    Ok(())
}

/// Chunks that an object touches.
fn chunks(offset_bytes: u64, length_bytes: u64, chunk_bytes: u32) -> u64 {
    match length_bytes {
        0 => 0,
        _ => offset_bytes.saturating_add(length_bytes).div_ceil(chunk_bytes.into()),
    }
}

/// Where a link leads.
pub fn url(link: &Link<'_>) -> String {
    let port = if link.port == 80 { String::new() } else { format!(":{}", link.port) };
    format!("http://{}{port}/{}", link.host, printable(link.path))
}

fn json_object(object: &Object<'_>, chunk_bytes: u32) -> JsonObject {
    let (extent, link) = match object.content {
        Content::Extent { chunk, offset_bytes, length_bytes } => {
            let chunks = chunks(offset_bytes, length_bytes, chunk_bytes);
            (Some(JsonExtent { chunk, offset_bytes, length_bytes, chunks }), None)
        }
        Content::Link(link) => {
            let host_kind = match link.host {
                Host::Name(_) => "name",
                Host::Ipv4(_) => "ipv4",
                Host::Ipv6(_) => "ipv6",
            };
            let path = String::from_utf8_lossy(link.path).into_owned();
            let (kind, host) = (link.kind.to_string(), link.host.to_string());
            (None, Some(JsonLink { kind, url: url(&link), host_kind, host, port: link.port, path }))
        }
    };
    JsonObject {
        name: String::from_utf8_lossy(object.name).into_owned(),
        name_hex: str::from_utf8(object.name).is_err().then(|| hex(object.name)),
        digest: hex(object.digest),
        mime: String::from_utf8_lossy(object.mime).into_owned(),
        created: rfc3339(object.created_unix_s),
        created_unix_s: object.created_unix_s,
        hidden: object.is_hidden(),
        default: object.is_default(),
        extent,
        link,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_touch_whole_chunks() {
        assert_eq!(chunks(0, 0, 4096), 0);
        assert_eq!(chunks(100, 0, 4096), 0);
        assert_eq!(chunks(0, 4096, 4096), 1);
        assert_eq!(chunks(1, 4096, 4096), 2);
    }

    #[test]
    fn links_read_as_urls() {
        let mut link = Link { host: Host::Name(b"radio.example"), port: 80, path: b"live?x=1", kind: LinkKind::Raw };
        assert_eq!(url(&link), "http://radio.example/live?x=1");
        link.port = 8000;
        link.host = Host::Ipv4([10, 0, 0, 1]);
        assert_eq!(url(&link), "http://10.0.0.1:8000/live?x=1");
    }
}
