//! Mounting: from disks in any order to a [`Volume`], without blocking.
//!
//! Three steps: the labels of all disks, which say which disks are the members and in which order; the configuration; the
//! hash table from end to end, several reads ahead, but evaluated in table order.

use alloc::boxed::Box;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use core::task::Poll;
use zerocopy::FromBytes;

use super::config::{Config, ConfigError};
use super::directory::{Directory, DirectoryFull};
use super::entry;
use super::format::{self, CONFIG_CHUNK, ENTRY_BYTES};
use super::label::Label;
use super::layout::{Layout, MemberDisk};
use super::reads::{Read, ReadQueue};
use super::volume::{DamagedEntry, MAX_DESCRIBED_DAMAGES, SkipReason, SkippedDisk, Volume};
use super::{EntryDamage, MountError};
use crate::rings::{BlockDevice, BlockError, Geometry, MAX_REQUEST_PAGES, PAGE_BYTES, Page, PageVec};

/// Most disks that are searched for members.
pub const MAX_DISKS: usize = 64;

const ENTRIES_PER_PAGE: usize = PAGE_BYTES / ENTRY_BYTES;

/// Limits and secrets of a mount.
#[derive(Clone, Copy, Debug)]
pub struct MountConfig {
    /// Keys the directory's hashes.
    pub secret: [u8; 16],
    /// Most memory of the directory in bytes. An object takes 50 bytes, its digest, its name and up to 20 for the hash
    /// tables.
    pub directory_max_bytes: usize,
}

/// A mount on its way.
pub struct Mount {
    config: MountConfig,
    reads: ReadQueue,
    step: Step,
}

enum Step {
    Start,
    Labels(Labels),
    Config(Box<Members>),
    Table(Box<TableWalk>),
    Failed(MountError),
    Done,
}

/// What the labels of the disks say so far.
struct Labels {
    geometries: Vec<Geometry>,
    labels: Vec<(usize, Label)>,
    skipped: Vec<SkippedDisk>,
}

/// The members are found.
struct Members {
    label: Label,
    layout: Layout,
    skipped: Vec<SkippedDisk>,
}

/// The hash table is being read.
struct TableWalk {
    members: Box<Members>,
    config: Config,
    directory: Directory,
    damaged_entries: u64,
    damages: Vec<DamagedEntry>,
    /// The table's next page to ask for.
    next_page: u64,
    pages: u64,
    /// The next slot to evaluate.
    next_slot: u32,
}

impl Mount {
    /// A mount that has not looked at any disk.
    pub fn new(config: MountConfig) -> Self {
        Self { config, reads: ReadQueue::new(), step: Step::Start }
    }

    /// Goes on with what the disks have answered; call it until it is ready, whenever a disk has something new. It takes the
    /// disks' completions and events, so nobody else may have requests in flight on them. An error comes when everything in
    /// flight has come back.
    ///
    /// # Panics
    /// If it is called again after it was ready.
    pub fn poll<B: BlockDevice>(&mut self, disks: &mut [B]) -> Poll<Result<Volume, MountError>> {
        if disks.is_empty() || disks.len() > MAX_DISKS {
            return Poll::Ready(Err(MountError::DiskCount(disks.len())));
        }
        loop {
            let answered = self.reads.collect(disks);
            let done = match core::mem::replace(&mut self.step, Step::Done) {
                Step::Start => self.start(disks),
                Step::Labels(labels) => self.continue_labels(labels),
                Step::Config(members) => self.continue_config(members),
                Step::Table(walk) => self.continue_table(walk),
                Step::Failed(error) => Err(error),
                Step::Done => panic!("a mount was polled after its end"),
            };
            match done {
                Ok(Step::Table(walk)) if walk.is_complete() => return Poll::Ready(Ok(walk.finish())),
                Ok(step) => self.step = step,
                Err(error) => {
                    if self.reads.abandon() {
                        return Poll::Ready(Err(error));
                    }
                    self.step = Step::Failed(error);
                }
            }
            let submitted = self.reads.submit(disks);
            if !answered && !submitted {
                return Poll::Pending;
            }
        }
    }

    fn start<B: BlockDevice>(&mut self, disks: &[B]) -> Result<Step, MountError> {
        let geometries: Vec<Geometry> = disks.iter().map(BlockDevice::geometry).collect();
        let mut skipped = Vec::new();
        for (disk, geometry) in geometries.iter().enumerate() {
            let sound = geometry.sector_bytes.is_power_of_two() && (512..=4096).contains(&geometry.sector_bytes);
            if !sound {
                skipped.push(SkippedDisk { disk, reason: SkipReason::Sectors(*geometry) });
            } else if geometry.sectors == 0 {
                skipped.push(SkippedDisk { disk, reason: SkipReason::Unlabelled });
            } else {
                self.reads.push(Read { disk, byte: 0, sector: 0, pages: 1 });
            }
        }
        self.continue_labels(Labels { geometries, labels: Vec::new(), skipped })
    }

    fn continue_labels(&mut self, mut labels: Labels) -> Result<Step, MountError> {
        while let Some((Read { disk, .. }, answer)) = self.reads.pop() {
            let label = match answer {
                Ok(pages) => match Label::parse(pages[0].bytes()) {
                    Some(Ok(label)) => Ok(label),
                    Some(Err(error)) => Err(SkipReason::Label(error)),
                    None => Err(SkipReason::Unlabelled),
                },
                // An unreadable disk matters only if it turns out that a member is missing.
                Err(error) => Err(SkipReason::Unreadable(error)),
            };
            match label {
                Ok(label) => labels.labels.push((disk, label)),
                Err(reason) => labels.skipped.push(SkippedDisk { disk, reason }),
            }
        }
        if labels.labels.len() + labels.skipped.len() < labels.geometries.len() {
            return Ok(Step::Labels(labels));
        }
        let members = Box::new(labels.find_members()?);
        let run = members.layout.run(CONFIG_CHUNK, 0).expect("every member begins chunk 1");
        self.reads.push(Read { disk: run.disk, byte: run.byte, sector: run.sector, pages: 1 });
        Ok(Step::Config(members))
    }

    fn continue_config(&mut self, members: Box<Members>) -> Result<Step, MountError> {
        let Some((read, answer)) = self.reads.pop() else { return Ok(Step::Config(members)) };
        let pages = answer.map_err(|error| read_error(&read, "configuration", error))?;
        let layout = &members.layout;
        let config = Config::parse(pages[0].bytes(), layout.chunk_bytes(), layout.last_chunk())?;
        let bytes = u64::from(config.table.entries) * ENTRY_BYTES as u64;
        let (first_chunk, chunks) = (config.table.first_chunk, config.table.chunks);
        if !layout.holds_extent(first_chunk, 0, bytes) {
            let (field, last_chunk) = ("htable_ref", layout.last_chunk());
            return Err(ConfigError::TableOffVolume { field, first_chunk, chunks, last_chunk }.into());
        }
        let MountConfig { secret, directory_max_bytes } = &self.config;
        self.continue_table(Box::new(TableWalk {
            members,
            config,
            directory: Directory::new(config.digest_bytes, *directory_max_bytes, secret),
            damaged_entries: 0,
            damages: Vec::new(),
            next_page: 0,
            pages: bytes.div_ceil(PAGE_BYTES as u64),
            next_slot: 0,
        }))
    }

    fn continue_table(&mut self, mut walk: Box<TableWalk>) -> Result<Step, MountError> {
        loop {
            while self.reads.has_room(MAX_REQUEST_PAGES) {
                let Some(read) = walk.next_read() else { break };
                self.reads.push(read);
            }
            let Some((read, answer)) = self.reads.pop() else { return Ok(Step::Table(walk)) };
            let pages: PageVec = answer.map_err(|error| read_error(&read, "hash table", error))?;
            for page in &pages {
                walk.evaluate(page)?;
            }
        }
    }
}

fn read_error(read: &Read, what: &'static str, error: BlockError) -> MountError {
    MountError::Read { disk: read.disk, byte: read.byte, what, error }
}

impl Labels {
    /// The first label decides which volume it is.
    fn find_members(mut self) -> Result<Members, MountError> {
        self.labels.sort_by_key(|(disk, _)| *disk);
        let mut labels = self.labels.into_iter();
        let Some((first_disk, label)) = labels.next() else {
            self.skipped.sort_by_key(|skipped| skipped.disk);
            return Err(MountError::NoVolume { skipped: self.skipped });
        };
        let place = |uuid| label.members.iter().position(|member| *member == uuid);
        let mut disks: ArrayVec<Option<usize>, { format::MAX_MEMBERS }> = label.members.iter().map(|_| None).collect();
        disks[place(label.member_uuid).expect("a label lists its own member")] = Some(first_disk);
        for (disk, other) in labels {
            let Some(member) = place(other.member_uuid) else {
                let reason = SkipReason::NotAMember { vol_name: other.vol_name, vol_uuid: other.vol_uuid };
                self.skipped.push(SkippedDisk { disk, reason });
                continue;
            };
            if let Some(field) = label.difference(&other) {
                return Err(MountError::Disagreement { field, disk: first_disk, other: disk });
            }
            if let Some(earlier) = disks[member].replace(disk) {
                let uuid = other.member_uuid;
                return Err(MountError::DuplicateMember { member, uuid, disk: earlier, duplicate: disk });
            }
        }
        self.skipped.sort_by_key(|skipped| skipped.disk);
        if let Some(member) = disks.iter().position(Option::is_none) {
            let (members, uuid) = (label.members.len(), label.members[member]);
            return Err(MountError::MissingMember {
                vol_name: label.vol_name,
                member,
                members,
                uuid,
                skipped: self.skipped,
            });
        }
        let disks: ArrayVec<MemberDisk, { format::MAX_MEMBERS }> =
            disks.iter().flatten().map(|&disk| MemberDisk { disk, geometry: self.geometries[disk] }).collect();
        for (member, MemberDisk { disk, geometry }) in disks.iter().enumerate() {
            let last_used_chunk = (label.vol_size - 1).max(CONFIG_CHUNK);
            let (bytes, needed_bytes) = (geometry.bytes(), label.striping.member_bytes(member, last_used_chunk));
            if bytes < needed_bytes {
                let vol_size = label.vol_size;
                return Err(MountError::DiskTooSmall { disk: *disk, member, bytes, needed_bytes, vol_size });
            }
        }
        let layout = Layout::new(label.striping, disks, label.vol_size);
        Ok(Members { label, layout, skipped: self.skipped })
    }
}

impl TableWalk {
    fn is_complete(&self) -> bool {
        self.next_slot == self.config.table.entries
    }

    /// The next read of the table: as many pages as lie one behind the other on one disk.
    fn next_read(&mut self) -> Option<Read> {
        let layout = &self.members.layout;
        let chunk_pages = layout.chunk_pages() as u64;
        let run = |page: u64| {
            let chunk = self.config.table.first_chunk + page / chunk_pages;
            (page < self.pages).then(|| layout.run(chunk, (page % chunk_pages) as usize)).flatten()
        };
        let first = run(self.next_page)?;
        let limit = (self.pages - self.next_page).min(MAX_REQUEST_PAGES as u64) as usize;
        let mut pages = first.pages.min(limit);
        while pages < limit {
            let behind = first.byte + (pages * PAGE_BYTES) as u64;
            match run(self.next_page + pages as u64) {
                Some(next) if next.disk == first.disk && next.byte == behind => pages = (pages + next.pages).min(limit),
                _ => break,
            }
        }
        self.next_page += pages as u64;
        Some(Read { disk: first.disk, byte: first.byte, sector: first.sector, pages })
    }

    fn evaluate(&mut self, page: &Page) -> Result<(), MountError> {
        let entries = <[format::Entry; ENTRIES_PER_PAGE]>::ref_from_bytes(page.bytes()).expect("entries fill a page");
        let left = (self.config.table.entries - self.next_slot) as usize;
        for raw in &entries[..left.min(ENTRIES_PER_PAGE)] {
            let slot = self.next_slot;
            self.next_slot += 1;
            match entry::parse(raw, &self.config, &self.members.layout) {
                None => {}
                Some(Err(damage)) => self.note(slot, damage),
                Some(Ok((object, damage))) => {
                    self.directory.push(&object).map_err(|full| self.too_large(full))?;
                    if let Some(damage) = damage {
                        self.note(slot, damage);
                    }
                }
            }
        }
        Ok(())
    }

    fn note(&mut self, slot: u32, damage: EntryDamage) {
        self.damaged_entries += 1;
        if self.damages.len() < MAX_DESCRIBED_DAMAGES {
            self.damages.push(DamagedEntry { slot, damage });
        }
    }

    fn too_large(&self, full: DirectoryFull) -> MountError {
        let objects = self.directory.len();
        match full {
            DirectoryFull::Limit => MountError::DirectoryTooLarge { max_bytes: self.directory.max_bytes(), objects },
            DirectoryFull::OutOfMemory => MountError::OutOfMemory { objects },
        }
    }

    fn finish(mut self) -> Volume {
        self.directory.finish();
        let Members { label, layout, skipped } = *self.members;
        Volume {
            name: label.vol_name,
            uuid: label.vol_uuid,
            created_unix_s: label.created_unix_s,
            hash_function: self.config.hash_function,
            digest_bytes: self.config.digest_bytes,
            chunk_bytes: layout.chunk_bytes(),
            vol_size: label.vol_size,
            members: label.members,
            table: self.config.table,
            layout,
            directory: self.directory,
            skipped_disks: skipped,
            damaged_entries: self.damaged_entries,
            damages: self.damages,
        }
    }
}
