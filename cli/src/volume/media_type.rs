//! The media type that an object gets for its name.

use minicache::cache::shfs::format::MAX_MIME_BYTES;

/// What is served without a better idea.
const FALLBACK: &str = "application/octet-stream";

/// Extensions for which the library's answer is not what browsers and players expect.
const CORRECTIONS: [(&str, &str); 8] = [
    ("js", "text/javascript"),
    ("mjs", "text/javascript"),
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("ts", "video/mp2t"),
    ("wasm", "application/wasm"),
    ("webmanifest", "application/manifest+json"),
    ("ico", "image/x-icon"),
    ("rst", "text/plain"),
];

/// The media type of an object, by the extension of its name: at most 32 bytes. A longer one is not cut but replaced by
/// `application/octet-stream`.
pub fn of_name(name: &[u8]) -> &'static str {
    let file_name = name.rsplit(|byte| *byte == b'/').next().unwrap_or(name);
    let Some(dot) = file_name.iter().rposition(|byte| *byte == b'.') else { return FALLBACK };
    let Ok(extension) = std::str::from_utf8(&file_name[dot + 1..]) else { return FALLBACK };
    let corrected = CORRECTIONS.iter().find(|(known, _)| known.eq_ignore_ascii_case(extension)).map(|(_, mime)| *mime);
    corrected
        .or_else(|| mime_guess::from_ext(extension).first_raw())
        .filter(|mime| mime.len() <= MAX_MIME_BYTES)
        .unwrap_or(FALLBACK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_the_web() {
        for (name, mime) in [
            ("index.html", "text/html"),
            ("a/b/INDEX.HTM", "text/html"),
            ("style.css", "text/css"),
            ("app.js", "text/javascript"),
            ("app.mjs", "text/javascript"),
            ("data.json", "application/json"),
            ("logo.svg", "image/svg+xml"),
            ("photo.jpeg", "image/jpeg"),
            ("photo.png", "image/png"),
            ("photo.webp", "image/webp"),
            ("photo.avif", "image/avif"),
            ("favicon.ico", "image/x-icon"),
            ("font.woff2", "font/woff2"),
            ("module.wasm", "application/wasm"),
            ("list.m3u8", "application/vnd.apple.mpegurl"),
            ("part.ts", "video/mp2t"),
            ("film.mp4", "video/mp4"),
            ("film.webm", "video/webm"),
            ("sound.mp3", "audio/mpeg"),
            ("paper.pdf", "application/pdf"),
            ("notes.txt", "text/plain"),
            ("notes.md", "text/markdown"),
            ("feed.xml", "text/xml"),
            ("site.webmanifest", "application/manifest+json"),
            ("archive.tar.gz", "application/gzip"),
            ("README", FALLBACK),
            ("v1.2/README", FALLBACK),
            ("what.unknown", FALLBACK),
            ("trailing.", FALLBACK),
        ] {
            assert_eq!(of_name(name.as_bytes()), mime, "{name}");
        }
    }

    #[test]
    fn types_that_do_not_fit_are_not_cut() {
        assert!(mime_guess::from_ext("docx").first_raw().unwrap().len() > MAX_MIME_BYTES);
        assert_eq!(of_name(b"letter.docx"), FALLBACK);
    }

    #[test]
    fn names_that_are_not_utf8_have_types() {
        assert_eq!(of_name(b"caf\xe9.txt"), "text/plain");
        assert_eq!(of_name(b"caf.\xe9"), FALLBACK);
    }
}
