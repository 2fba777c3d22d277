//! What µShell sees of the appliance.

use alloc::rc::Rc;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use smoltcp::time::Instant;

use super::Appliance;
use crate::http::{ChunkRead, HttpServer, Served};
use crate::platform::{MemoryUse, Power};
use crate::rings::{BlockDevice, NetQueue, PAGE_BYTES};
use crate::shell::{BlockInfo, InterfaceInfo, Machine, MountState, PoolInfo, RingInfo};
use crate::stats::Stats;
use crate::tcp_gso::ConnectionInfo;

impl<N: NetQueue, B: BlockDevice> Machine for Appliance<N, B> {
    fn now(&self) -> Instant {
        self.now
    }

    fn started_at(&self) -> Instant {
        self.started_at.unwrap_or(self.now)
    }

    fn unix_s(&self) -> u64 {
        self.unix_s
    }

    fn stats(&self) -> &Stats {
        &self.stats
    }

    fn http(&self) -> &HttpServer {
        &self.http
    }

    fn served(&self) -> Option<Rc<Served>> {
        self.http.served()
    }

    fn read(&mut self, session: u8, served: &Served, chunk: u64, ahead_chunks: u32) -> ChunkRead<'_> {
        self.http.read_for_shell(session, served, chunk, ahead_chunks)
    }

    fn forget(&mut self, session: u8) {
        self.http.forget_for_shell(session);
    }

    fn flush_cache(&mut self) -> usize {
        self.http.cache_mut().flush()
    }

    fn connections(&self, most: usize) -> Vec<ConnectionInfo> {
        self.tcp.connections().take(most).collect()
    }

    fn max_connections(&self) -> usize {
        self.config.tcp.max_connections
    }

    fn interface(&self) -> InterfaceInfo {
        InterfaceInfo {
            hardware_address: self.network.hardware_address(),
            addresses: self.network.addresses().to_vec(),
            capabilities: self.net.capabilities(),
            status: self.network.status(),
        }
    }

    fn rings(&self) -> Vec<RingInfo> {
        let capabilities = self.net.capabilities();
        vec![RingInfo {
            name: "en0",
            numbers: vec![
                ("most slots of a frame", capabilities.max_slots as u64),
                ("most bytes of a frame", capabilities.max_frame_bytes as u64),
                ("most bytes of a head", capabilities.head_bytes as u64),
            ],
        }]
    }

    fn disks(&self) -> Vec<BlockInfo> {
        let members = self.http.volume().map_or(&[][..], |volume| volume.layout.members());
        let used = |number| members.iter().any(|member| member.disk == number);
        let info = |(number, disk): (usize, &B)| BlockInfo { number, geometry: disk.geometry(), in_use: used(number) };
        self.disks.iter().enumerate().map(info).collect()
    }

    fn mount(&mut self, disks: &[usize]) {
        self.mount_from(disks);
    }

    fn mount_state(&self) -> MountState {
        match (&self.mount, &self.mount_outcome) {
            (Some(_), _) => MountState::Busy,
            (None, None) => MountState::Idle,
            (None, Some(Ok(()))) => MountState::Done,
            (None, Some(Err(error))) => MountState::Failed(error.to_string()),
        }
    }

    fn unmount(&mut self, force: bool) -> Result<(), usize> {
        let open = self.http.served().map_or(0, |served| served.open_objects());
        if open > 0 && !force {
            return Err(open);
        }
        Appliance::unmount(self);
        Ok(())
    }

    fn memory(&self) -> Option<MemoryUse> {
        self.memory_source.as_ref().map(|source| source())
    }

    fn pools(&self) -> Vec<PoolInfo> {
        let bytes = |pages| (pages * PAGE_BYTES) as u64;
        [("cache", &self.cache_pages), ("packets", &self.packet_pages)]
            .map(|(name, pool)| PoolInfo { name, bytes: bytes(pool.capacity()), used_bytes: bytes(pool.in_use()) })
            .to_vec()
    }

    fn power(&mut self, power: Power) -> Result<(), &'static str> {
        if power == Power::Reboot && !self.can_reboot {
            return Err(
                "this is a process, not a machine of its own: 'halt' ends it, start it again where it was started",
            );
        }
        // The first word counts. What follows from it begins when the shell has said so.
        self.power.get_or_insert(power);
        Ok(())
    }

    fn autosizes_frames(&self) -> bool {
        self.tcp.autosizes_frames()
    }

    fn set_autosize_frames(&mut self, on: bool) {
        self.tcp.set_autosize_frames(on);
    }
}
