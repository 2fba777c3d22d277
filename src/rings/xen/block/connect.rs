//! How a disk is connected, and what its back end says of it.

use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::super::abi::block::{ENTRY_BYTES, UNIT_BYTES, VDISK_READONLY};
use super::super::granted::GrantedMemory;
use super::super::grants::Access;
use super::super::life::{Connect, Talk};
use super::super::ring::FrontRing;
use super::super::xenbus::{Device, State, bad_value};
use super::super::{Channel, DomainId, XenError};
use super::DEPTH;
use crate::rings::{Geometry, MAX_REQUEST_PAGES, PAGE_BYTES};

/// The layout of requests (`blkif.h`, "protocol").
#[cfg(target_arch = "x86_64")]
const PROTOCOL: &str = "x86_64-abi";
#[cfg(target_arch = "aarch64")]
const PROTOCOL: &str = "arm-abi";

/// What there is only while the back end is connected.
pub(super) struct Connected {
    pub ring: FrontRing,
    /// Where the back end is.
    pub domain: DomainId,
    pub channel: Channel,
    pub geometry: Geometry,
    /// Pages in which requests of more segments than a ring's entry has describe them, one for each request.
    pub indirect: Option<GrantedMemory>,
    /// The back end makes earlier writes durable when it is asked to.
    pub flushes: bool,
}

/// The disk's driver, as far as its connection goes.
pub(super) struct Driver;

impl Connect<Connected> for Driver {
    const NAME: &'static str = "xen-blkfront";
    // Another disk would not be what is mounted.
    const RETURNS: bool = false;

    fn connect(&self, device: Rc<Device>) -> Talk<Result<Connected, XenError>> {
        Box::pin(connect(device))
    }

    /// Also when the disk gets another size (`xl block-resize`): the back end writes its state again then.
    fn ends(&self, device: Rc<Device>) -> Talk<Result<(), XenError>> {
        Box::pin(async move {
            let before = geometry(&device).await?;
            while device.state().await? == State::Connected && geometry(&device).await? == before {
                device.changed().await?;
            }
            Ok(())
        })
    }
}

async fn connect(device: Rc<Device>) -> Result<Connected, XenError> {
    device.wait_for_back_end().await?;
    let xen = &device.xen;
    let segments = device.offer_number::<u32>("feature-max-indirect-segments").await?.unwrap_or(0);
    let ring = FrontRing::new(xen, device.domain, ENTRY_BYTES)?;
    let indirect = match segments as usize >= MAX_REQUEST_PAGES {
        true => Some(GrantedMemory::new(xen, device.domain, DEPTH, Access::Read)?),
        false => None,
    };
    let channel = xen.alloc_unbound(device.domain)?;
    let mut nodes: Vec<(String, String)> = Vec::new();
    let mut say = |name: &str, value: &dyn ToString| nodes.push((name.to_string(), value.to_string()));
    say("ring-ref", &ring.reference());
    say("event-channel", &channel.port);
    say("protocol", &PROTOCOL);
    // Persistent grants would leave pages that are served writable by the back end.
    say("feature-persistent", &0);
    device.publish(&nodes).await?;
    device.set_state(State::Initialised).await?;
    match device.wait_for(&[State::Connected, State::Closing, State::Closed, State::Unknown]).await? {
        State::Connected => {}
        _ => return Err(XenError::Withdrawn),
    }
    // Only now does the back end say what the disk is.
    let geometry = geometry(&device).await?;
    let flushes = device.offers("feature-flush-cache").await?;
    device.set_state(State::Connected).await?;
    Ok(Connected { ring, domain: device.domain, channel, geometry, indirect, flushes })
}

async fn geometry(device: &Device) -> Result<Geometry, XenError> {
    let needed = |name: &str| XenError::Missing(format!("the back end's {name} of {}", device.path));
    // In units of 512 bytes, whatever the sectors are.
    let units = device.offer_number::<u64>("sectors").await?.ok_or_else(|| needed("sectors"))?;
    let sector_bytes = device.offer_number::<u32>("sector-size").await?.unwrap_or(UNIT_BYTES as u32);
    if !sector_bytes.is_power_of_two() || !(UNIT_BYTES as u32..=PAGE_BYTES as u32).contains(&sector_bytes) {
        return Err(bad_value(&format!("sector-size of {}", device.path), &sector_bytes.to_string()));
    }
    if units > u64::MAX / UNIT_BYTES {
        return Err(bad_value(&format!("sectors of {}", device.path), &units.to_string()));
    }
    let info = device.offer_number::<u32>("info").await?.unwrap_or(0);
    let mode = device.offer("mode").await?;
    let read_only = info & VDISK_READONLY != 0 || mode.is_some_and(|mode| mode.trim_end_matches('\0') == "r");
    Ok(Geometry { sector_bytes, sectors: units / (u64::from(sector_bytes) / UNIT_BYTES), read_only })
}
