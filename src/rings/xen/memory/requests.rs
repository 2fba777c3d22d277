//! What the guest may ask of the store, and what comes of it.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::super::abi::store::{
    Header, PAYLOAD_MAX, XS_DIRECTORY, XS_READ, XS_RM, XS_TRANSACTION_END, XS_TRANSACTION_START, XS_UNWATCH, XS_WATCH,
    XS_WRITE,
};
use super::store::Store;
use super::tree::{Transaction, Tree, Watch};

/// Longest absolute path (`XENSTORE_ABS_PATH_MAX`).
const MAX_PATH_BYTES: usize = 3072;
/// Longest relative path (`XENSTORE_REL_PATH_MAX`).
const MAX_RELATIVE_PATH_BYTES: usize = 2048;
/// Most watches of a guest (xenstored's default quota).
const MAX_WATCHES: usize = 128;
/// Most transactions of a guest at a time (xenstored's default quota).
const MAX_TRANSACTIONS: usize = 10;

/// Why a request fails, as the wire names it.
pub(super) type Refusal = &'static str;

/// Splits the string off that a payload begins with.
fn string(payload: &[u8]) -> Result<(&str, &[u8]), Refusal> {
    let end = payload.iter().position(|byte| *byte == 0).ok_or("EINVAL")?;
    Ok((core::str::from_utf8(&payload[..end]).map_err(|_| "EINVAL")?, &payload[end + 1..]))
}

/// The string that is all of a payload.
fn lone_string(payload: &[u8]) -> Result<&str, Refusal> {
    let (string, rest) = string(payload)?;
    if rest.is_empty() { Ok(string) } else { Err("EINVAL") }
}

/// What is said of a node that is not there: of what lies outside of the domains' own folders, in a folder that is not there either, not
/// even that.
fn missing(tree: &Tree, path: &str) -> Refusal {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    if path.starts_with("/local/domain/0/") && tree.read(folder).is_none() { "EACCES" } else { "ENOENT" }
}

impl Store {
    /// Does what a request asks for, and returns what its answer carries.
    pub(super) fn execute(&mut self, header: &Header, payload: &[u8]) -> Result<Vec<u8>, Refusal> {
        if header.tx_id != 0 && !self.transactions.contains_key(&header.tx_id) {
            return Err("ENOENT");
        }
        match header.kind {
            XS_READ => {
                let path = self.readable(lone_string(payload)?)?;
                let tree = self.look(header.tx_id, &path);
                tree.read(&path).map(<[u8]>::to_vec).ok_or_else(|| missing(tree, &path))
            }
            XS_DIRECTORY => {
                let path = self.readable(lone_string(payload)?)?;
                let names = self.look(header.tx_id, &path).directory(&path).ok_or("ENOENT")?;
                let body: Vec<u8> = names.iter().flat_map(|name| name.bytes().chain([0])).collect();
                if body.len() <= PAYLOAD_MAX { Ok(body) } else { Err("E2BIG") }
            }
            XS_WRITE => {
                let (path, value) = string(payload)?;
                let path = self.writable(path)?;
                match self.transactions.get_mut(&header.tx_id) {
                    Some(transaction) => transaction.write(&path, value),
                    None => self.write(&path, value),
                }
                Ok(b"OK\0".to_vec())
            }
            XS_RM => {
                let path = self.writable(lone_string(payload)?)?;
                let tree = self.look(header.tx_id, &path);
                let above = path.rsplit_once('/').expect("it is absolute").0;
                if tree.read(&path).is_none() && tree.read(above).is_none() {
                    return Err("ENOENT");
                }
                match self.transactions.get_mut(&header.tx_id) {
                    Some(transaction) => transaction.remove(&path),
                    None => self.remove(&path),
                }
                Ok(b"OK\0".to_vec())
            }
            XS_WATCH => self.watch(payload),
            XS_UNWATCH => {
                let watch = self.parse_watch(payload)?;
                let index = self.watches.iter().position(|other| *other == watch).ok_or("ENOENT")?;
                self.watches.remove(index);
                Ok(b"OK\0".to_vec())
            }
            XS_TRANSACTION_START => self.begin(header, payload),
            XS_TRANSACTION_END => self.end(header, payload),
            _ => Err("ENOSYS"),
        }
    }

    fn watch(&mut self, payload: &[u8]) -> Result<Vec<u8>, Refusal> {
        let watch = self.parse_watch(payload)?;
        if self.watches.contains(&watch) {
            return Err("EEXIST");
        }
        if self.watches.len() == MAX_WATCHES {
            return Err("E2BIG");
        }
        self.watches.push(watch.clone());
        self.fresh = Some(watch);
        Ok(b"OK\0".to_vec())
    }

    fn parse_watch(&self, payload: &[u8]) -> Result<Watch, Refusal> {
        let (path, rest) = string(payload)?;
        let token = lone_string(rest)?.as_bytes().to_vec();
        let is_relative = !path.starts_with('/');
        let prefix = if is_relative { format!("{}/", self.home) } else { String::new() };
        Ok(Watch { path: self.absolute(path)?, prefix, token })
    }

    fn begin(&mut self, header: &Header, payload: &[u8]) -> Result<Vec<u8>, Refusal> {
        if header.tx_id != 0 {
            return Err("EBUSY");
        }
        if payload != b"\0" {
            return Err("EINVAL");
        }
        if self.transactions.len() == MAX_TRANSACTIONS {
            return Err("ENOSPC");
        }
        self.last_transaction += 1;
        self.transactions.insert(self.last_transaction, Transaction::new(&self.tree));
        Ok(format!("{}\0", self.last_transaction).into_bytes())
    }

    fn end(&mut self, header: &Header, payload: &[u8]) -> Result<Vec<u8>, Refusal> {
        let commit = match payload {
            b"T\0" => true,
            b"F\0" => false,
            _ => return Err("EINVAL"),
        };
        let transaction = self.transactions.remove(&header.tx_id).ok_or("ENOENT")?;
        if commit {
            if self.conflicts > 0 {
                self.conflicts -= 1;
                return Err("EAGAIN");
            }
            let changes = transaction.commit(&mut self.tree).ok_or("EAGAIN")?;
            changes.iter().for_each(|change| self.fire(change));
        }
        Ok(b"OK\0".to_vec())
    }

    /// The tree as the transaction sees it, or as it is.
    fn look(&mut self, transaction: u32, path: &str) -> &Tree {
        match self.transactions.get_mut(&transaction) {
            Some(transaction) => transaction.look(path),
            None => &self.tree,
        }
    }

    /// A sound path, made absolute.
    fn absolute(&self, path: &str) -> Result<String, Refusal> {
        let is_absolute = path.starts_with('/');
        let longest = if is_absolute { MAX_PATH_BYTES } else { MAX_RELATIVE_PATH_BYTES };
        let names = path.strip_prefix('/').unwrap_or(path);
        let is_sound = |name: &str| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_@".contains(&byte))
        };
        if path.len() > longest || !names.split('/').all(is_sound) {
            return Err("EINVAL");
        }
        Ok(if is_absolute { path.to_string() } else { format!("{}/{path}", self.home) })
    }

    /// As [`Store::absolute`], of what the guest may read: its own, and its back ends'.
    fn readable(&self, path: &str) -> Result<String, Refusal> {
        let path = self.absolute(path)?;
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let own = self.domain.to_string();
        match parts[..] {
            ["local", "domain", domain, ..] if domain == own => Ok(path),
            ["local", "domain", _, "backend", _, domain, ..] if domain == own => Ok(path),
            _ => Err("EACCES"),
        }
    }

    /// As [`Store::absolute`], of what the guest may write: what lies in its home.
    fn writable(&self, path: &str) -> Result<String, Refusal> {
        let path = self.absolute(path)?;
        let inside = path.strip_prefix(&self.home).is_some_and(|rest| rest.starts_with('/'));
        if inside { Ok(path) } else { Err("EACCES") }
    }
}
