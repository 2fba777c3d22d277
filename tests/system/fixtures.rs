//! Volumes that the original's tools made are served, whatever the order of their members.
//!
//! The images are not part of the project: `MINICACHE_FIXTURES` names their folder, or they lie in `../shared/fixtures`.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::{env, fs};

use smoltcp::time::Duration;

use crate::sim::fetcher::{Outcome, Request, Target};
use crate::sim::in_memory::InMemory;
use crate::sim::script::{Script, plain};
use crate::sim::site::{Object, Site};
use crate::sim::world::{World, WorldConfig};

/// The volumes, by the beginning of their images' names.
const VOLUMES: &[&str] = &["single", "ind", "comb", "comb3", "links", "removed"];

fn fixtures() -> Option<PathBuf> {
    let folder = env::var_os("MINICACHE_FIXTURES")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/fixtures"));
    folder.is_dir().then_some(folder)
}

/// The images of a volume, in order: its name and a digit each.
fn images(folder: &Path, volume: &str) -> Vec<Vec<u8>> {
    let paths = (0..16).map(|member| folder.join(format!("{volume}{member}.img")));
    paths.map_while(|path| fs::read(path).ok()).collect()
}

/// The objects that the tool's listing names and whose bytes are known. Links have no bytes here.
fn listed(folder: &Path, volume: &str) -> Site {
    let listing = fs::read_to_string(folder.join(format!("{volume}.list.txt"))).expect("a listing of the volume");
    let object = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (digest, name) = (words.first()?, words.last()?);
        let content = fs::read(folder.join("files").join(name)).ok()?;
        let digest = (0..digest.len() / 2).map(|i| u8::from_str_radix(&digest[2 * i..2 * i + 2], 16).ok());
        Some((
            words.contains(&"-D-"),
            Object { name: name.to_string(), digest: digest.collect::<Option<_>>()?, content },
        ))
    };
    let mut objects: Vec<(bool, Object)> = listing.lines().skip(1).filter_map(object).collect();
    // The default object first, or what stands in for it.
    objects.sort_by_key(|(is_default, object)| (!is_default, object.name != "index.html"));
    Site { objects: objects.into_iter().map(|(_, object)| object).collect() }
}

#[test]
fn volumes_of_the_original_tools_are_served() {
    let Some(folder) = fixtures() else {
        println!("skipped: no images in MINICACHE_FIXTURES or ../shared/fixtures");
        return;
    };
    for volume in VOLUMES {
        let site = Rc::new(listed(&folder, volume));
        assert!(!site.objects.is_empty(), "{volume}: a listing of nothing");
        let members = images(&folder, volume);
        let orders = (0..members.len()).map(|first| {
            let mut order = members.clone();
            order.rotate_left(first);
            order
        });
        for disks in orders.chain([members.iter().rev().cloned().collect()]) {
            let mut world = World::<InMemory>::with_disks(WorldConfig::default(), disks);
            let numbers = 0..site.objects.len();
            let targets = numbers.flat_map(|number| [Target::Name(number), Target::Digest(number)]);
            let root = (site.objects[0].name == "index.html").then_some(Target::Root);
            let requests =
                targets.chain(root).chain([Target::Missing]).map(|target| Request { target, head_only: false });
            let mut client = Script::new(site.clone(), 0, plain(requests));
            world.run(&mut client, Duration::from_secs(60), |_| false);
            assert!(client.is_done(), "{volume}: {:?}", client.outcomes);
            for (request, outcome) in &client.outcomes {
                assert!(matches!(outcome, Outcome::Verified { .. }), "{volume}: {request:?} {outcome:?}");
            }
        }
    }
}
