//! What a request is answered with.

use alloc::rc::Rc;
use core::cell::Cell;

use super::access_log::Answered;
use super::conditions::{Validators, Verdict};
use super::config::MAX_REDIRECT_QUERY_BYTES;
use super::etag;
use super::method::Method;
use super::range::{self, Selection};
use super::request::Request;
use super::response::{CommonFields, Connection, Head, HeadBuffer};
use super::server::HttpServer;
use super::status::{Refusal, Status};
use super::target::{self, Route, Target};
use super::transfer::{ByteRange, Transfer, TransferHead};
use crate::cache::shfs::{Content, Link, LinkKind, Object};
use crate::stats::Stats;
use crate::tcp_gso::Outbox;

/// How far an answer got.
pub enum Answer {
    /// It is queued.
    Sent,
    /// There was no head page for it; nothing has been queued.
    NoHeadPages,
    /// It has a body that is to be fed.
    Body(Transfer),
}

/// Seconds after which a client may ask again when no volume is mounted, or memory is short.
const RETRY_AFTER_S: &[u8] = b"2";

/// What object without a type is said to be (RFC 9110 §8.3).
const UNKNOWN_TYPE: &[u8] = b"application/octet-stream";

impl HttpServer {
    /// Answers a request.
    pub(super) fn answer(&mut self, request: &Request<'_>, connection: Connection, out: &mut impl Outbox) -> Answer {
        match self.try_answer(request, connection, out) {
            Ok(answer) => answer,
            Err(refusal) => self.refuse(&refusal, request.method == Method::Head, connection, out),
        }
    }

    fn try_answer(
        &mut self,
        request: &Request<'_>,
        connection: Connection,
        out: &mut impl Outbox,
    ) -> Result<Answer, Refusal> {
        if matches!(request.method, Method::Connect | Method::Refused) {
            return Err(METHOD_NOT_ALLOWED);
        }
        let Target::Path { path, query } = Target::parse(request.target, request.method)? else {
            return Ok(self.allow(connection, out));
        };
        let served = Rc::clone(self.served.as_ref().ok_or(NO_VOLUME)?);
        let directory = &served.volume.directory;
        let id = match target::resolve(path, query, directory)? {
            Route::Missing => return Err(NOT_FOUND),
            Route::Object(_) | Route::Folder if request.method == Method::Options => {
                return Ok(self.allow(connection, out));
            }
            Route::Object(id) => id,
            Route::Folder => {
                let name = target::decode(path)?.ok_or(NOT_FOUND)?;
                let mut head = Head::new(&mut self.head, Status::MovedPermanently, &self.common, connection);
                head.location_of_folder(&name, query.filter(|query| query.len() <= MAX_REDIRECT_QUERY_BYTES));
                let bytes = head.finish_with_page(&MOVED, request.method == Method::Head);
                return Ok(send(Status::MovedPermanently, bytes, &self.stats, &self.answered, out));
            }
        };
        let object = directory.get(id);
        let (chunk, offset_bytes, length_bytes) = match object.content {
            Content::Extent { chunk, offset_bytes, length_bytes } => (chunk, offset_bytes, length_bytes),
            Content::Link(Link { host, port, path, kind: LinkKind::Redirect }) => {
                let mut head = Head::new(&mut self.head, Status::TemporaryRedirect, &self.common, connection);
                head.location_of_link(&host, port, path);
                head.content_length(0);
                return Ok(send(Status::TemporaryRedirect, head.finish(), &self.stats, &self.answered, out));
            }
            Content::Link(_) => return Err(UNSUPPORTED_LINK),
        };
        let mut part = None;
        if request.fields.selective() {
            let etag = etag::of(object.digest, length_bytes, object.created_unix_s);
            let now_unix_s = self.common.unix_s();
            let modified_unix_s = last_modified(object.created_unix_s, now_unix_s);
            let validators = Validators { etag: &etag, modified_unix_s, now_unix_s };
            match validators.judge(&request.fields) {
                Verdict::Proceed => {}
                Verdict::Failed => return Err(PRECONDITION_FAILED),
                Verdict::NotModified => {
                    let mut head = Head::new(&mut self.head, Status::NotModified, &self.common, connection);
                    // RFC 9110 §15.4.5: what else is known of the object, the client has.
                    head.etag(&etag);
                    return Ok(send(Status::NotModified, head.finish(), &self.stats, &self.answered, out));
                }
            }
            if request.method == Method::Get && validators.range_counts(&request.fields) {
                match range::select(&request.fields, length_bytes) {
                    Selection::Whole => {}
                    Selection::Part(range) => part = Some(range),
                    Selection::Unsatisfiable => {
                        let mut head = Head::new(&mut self.head, Status::RangeNotSatisfiable, &self.common, connection);
                        head.unsatisfied_range(length_bytes);
                        let bytes = head.finish_with_page(&UNSATISFIABLE, false);
                        return Ok(send(Status::RangeNotSatisfiable, bytes, &self.stats, &self.answered, out));
                    }
                }
            }
        }
        if request.method == Method::Head || length_bytes == 0 {
            let head = object_head(&mut self.head, &object, length_bytes, None, &self.common, connection);
            let answer = send(Status::Ok, head.finish(), &self.stats, &self.answered, out);
            if request.method == Method::Get && matches!(answer, Answer::Sent) {
                let counters = served.object_stats(id);
                counters.begin(self.common.unix_s());
                counters.end(0, 0);
            }
            return Ok(answer);
        }
        let head = TransferHead { object: id, part, connection };
        let range = part.unwrap_or(ByteRange { first: 0, length: length_bytes });
        Ok(Answer::Body(Transfer::new(served, head, chunk, offset_bytes, range, self.common.unix_s())))
    }

    /// Answers with an error page.
    pub(super) fn refuse(
        &mut self,
        refusal: &Refusal,
        without_body: bool,
        connection: Connection,
        out: &mut impl Outbox,
    ) -> Answer {
        let mut head = Head::new(&mut self.head, refusal.status, &self.common, connection);
        match refusal.status {
            Status::MethodNotAllowed => head.field("Allow: ", Method::ALLOW.as_bytes()),
            Status::ServiceUnavailable => head.field("Retry-After: ", RETRY_AFTER_S),
            _ => {}
        }
        send(refusal.status, head.finish_with_page(refusal, without_body), &self.stats, &self.answered, out)
    }

    /// Answers OPTIONS (RFC 9110 §9.3.7).
    fn allow(&mut self, connection: Connection, out: &mut impl Outbox) -> Answer {
        let mut head = Head::new(&mut self.head, Status::NoContent, &self.common, connection);
        head.field("Allow: ", Method::ALLOW.as_bytes());
        send(Status::NoContent, head.finish(), &self.stats, &self.answered, out)
    }
}

fn send(status: Status, bytes: &[u8], stats: &Stats, last: &Cell<Answered>, out: &mut impl Outbox) -> Answer {
    if !out.push_head(bytes) {
        return Answer::NoHeadPages;
    }
    status.count(stats);
    Answered::note(last, status, bytes);
    Answer::Sent
}

/// Begins the head of a response with an object, or with `part` of it.
pub(super) fn object_head<'a>(
    buffer: &'a mut HeadBuffer,
    object: &Object<'_>,
    length_bytes: u64,
    part: Option<ByteRange>,
    common: &CommonFields,
    connection: Connection,
) -> Head<'a> {
    let status = if part.is_some() { Status::PartialContent } else { Status::Ok };
    let mut head = Head::new(buffer, status, common, connection);
    head.field("Content-Type: ", if object.mime.is_empty() { UNKNOWN_TYPE } else { object.mime });
    match part {
        Some(ByteRange { first, length }) => {
            head.content_length(length);
            head.content_range(first, first + length - 1, length_bytes);
        }
        None => head.content_length(length_bytes),
    }
    let tag = etag::of(object.digest, length_bytes, object.created_unix_s);
    head.etag(&tag);
    if let Some(unix_s) = last_modified(object.created_unix_s, common.unix_s()) {
        head.last_modified(unix_s);
    }
    head.accept_ranges();
    head
}

/// The time for `Last-Modified`: none where the volume has none, or one that lies after `Date` (RFC 9110 §8.8.2.1).
pub(super) fn last_modified(created_unix_s: u64, now_unix_s: u64) -> Option<u64> {
    (1..=now_unix_s).contains(&created_unix_s).then_some(created_unix_s)
}

const METHOD_NOT_ALLOWED: Refusal =
    Refusal::new(Status::MethodNotAllowed, "Objects here can only be read: use GET or HEAD.");
pub(super) const NOT_FOUND: Refusal = Refusal::new(Status::NotFound, "There is no object with this name or digest.");
const MOVED: Refusal = Refusal::new(Status::MovedPermanently, "This is a folder; its name ends with a slash.");
const NO_VOLUME: Refusal = Refusal::new(Status::ServiceUnavailable, "No volume is mounted. Try again in a moment.");
const PRECONDITION_FAILED: Refusal =
    Refusal::new(Status::PreconditionFailed, "The object is not, or no longer, the one that the request is meant for.");
const UNSATISFIABLE: Refusal =
    Refusal::new(Status::RangeNotSatisfiable, "The object has no bytes in the range that was asked for.");
const UNSUPPORTED_LINK: Refusal =
    Refusal::new(Status::BadGateway, "This object is a stream of another server, which can't be fetched from here.");
/// The disk failed before the head went out.
pub(super) const READ_FAILED: Refusal =
    Refusal::new(Status::InternalServerError, "The object could not be read from its disk.");
/// Cache memory was short for too long.
pub(super) const NO_MEMORY: Refusal = Refusal::new(
    Status::ServiceUnavailable,
    "The server's cache memory is in use by other requests. Try again in a moment.",
);
/// The disk did not answer in time.
pub(super) const DISK_SILENT: Refusal =
    Refusal::new(Status::ServiceUnavailable, "The disk did not answer in time. Try again in a moment.");
