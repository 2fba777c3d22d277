//! What a virtual machine is made of, and QEMU's words for it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::Namespace;

/// The network device's MAC address; its link-local address ends in `5054:ff:fe12:3456`.
pub const MAC: &str = "52:54:00:12:34:56";

/// A kind of machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// microvm without ACPI: the least that there is.
    MicrovmWithoutAcpi,
    /// microvm.
    Microvm,
    /// microvm with a PCI Express bus.
    MicrovmPcie,
    /// A PC, with SeaBIOS.
    Q35,
    /// A PC, with the small firmware qboot.
    Q35Qboot,
}

impl Machine {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::MicrovmWithoutAcpi, Self::Microvm, Self::MicrovmPcie, Self::Q35, Self::Q35Qboot];

    /// Whether it has what this transport needs.
    pub fn takes(self, transport: Transport) -> bool {
        match self {
            Self::MicrovmWithoutAcpi | Self::Microvm => transport != Transport::Pci,
            Self::MicrovmPcie => true,
            Self::Q35 | Self::Q35Qboot => transport == Transport::Pci,
        }
    }

    pub(super) fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::MicrovmWithoutAcpi => &["-M", "microvm,acpi=off"],
            Self::Microvm => &["-M", "microvm,acpi=on"],
            Self::MicrovmPcie => &["-M", "microvm,acpi=on,pcie=on"],
            Self::Q35 => &["-M", "q35"],
            Self::Q35Qboot => &["-M", "q35", "-bios", "qboot.rom"],
        }
    }
}

/// How virtio devices are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Memory-mapped registers as before virtio 1.0.
    MmioLegacy,
    /// Memory-mapped registers of virtio 1.
    MmioModern,
    /// PCI Express, virtio 1.
    Pci,
}

impl Transport {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::MmioLegacy, Self::MmioModern, Self::Pci];

    pub(super) fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::MmioModern => &["-global", "virtio-mmio.force-legacy=false"],
            Self::MmioLegacy => &["-global", "virtio-mmio.force-legacy=true"],
            Self::Pci => &[],
        }
    }

    /// What QEMU's device names end in.
    fn suffix(self) -> &'static str {
        match self {
            Self::MmioLegacy | Self::MmioModern => "device",
            Self::Pci => "pci",
        }
    }
}

/// Something that a virtio network device offers (virtio 1.2, 5.1.3 and 6), and that can be switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// It completes checksums that are sent.
    Checksum,
    /// It may be given frames whose checksum is not complete, and gives such.
    GuestChecksum,
    /// It segments TCP over IPv4.
    HostTso4,
    /// It segments TCP over IPv6.
    HostTso6,
    /// It gives large TCP segments over IPv4.
    GuestTso4,
    /// It gives large TCP segments over IPv6.
    GuestTso6,
    /// It spreads a frame over receive buffers.
    MergeableBuffers,
    /// It says at which index it wants to be woken.
    EventIndex,
    /// It reads descriptor tables that lie elsewhere.
    IndirectDescriptors,
}

impl Offload {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Checksum,
        Self::GuestChecksum,
        Self::HostTso4,
        Self::HostTso6,
        Self::GuestTso4,
        Self::GuestTso6,
        Self::MergeableBuffers,
        Self::EventIndex,
        Self::IndirectDescriptors,
    ];

    /// QEMU's name of the property.
    pub fn property(self) -> &'static str {
        match self {
            Self::Checksum => "csum",
            Self::GuestChecksum => "guest_csum",
            Self::HostTso4 => "host_tso4",
            Self::HostTso6 => "host_tso6",
            Self::GuestTso4 => "guest_tso4",
            Self::GuestTso6 => "guest_tso6",
            Self::MergeableBuffers => "mrg_rxbuf",
            Self::EventIndex => "event_idx",
            Self::IndirectDescriptors => "indirect_desc",
        }
    }
}

/// What a machine's network interface is connected to.
#[derive(Clone, Debug)]
pub enum Network<'a> {
    /// There is none.
    None,
    /// QEMU's own network: the guest is 10.0.2.15, its router 10.0.2.2. It needs no privilege and offers no offload.
    User {
        /// TCP ports of 127.0.0.1, and the ports of the guest that they reach.
        forwards: Vec<(u16, u16)>,
    },
    /// A TAP interface of a namespace.
    Tap {
        /// The namespace, in which the machine runs.
        namespace: &'a Namespace,
        /// The interface's name.
        interface: &'a str,
    },
}

impl Network<'_> {
    /// `records`: what comes from outside is recorded.
    pub(super) fn arguments(&self, transport: Transport, switched_off: &[Offload], records: bool) -> Vec<String> {
        let backend = match self {
            Self::None => return Vec::new(),
            Self::User { forwards } => {
                let forward = |(host, guest): &(u16, u16)| format!(",hostfwd=tcp:127.0.0.1:{host}-:{guest}");
                format!("user,id=net0{}", forwards.iter().map(forward).collect::<String>())
            }
            Self::Tap { interface, .. } => format!("tap,id=net0,ifname={interface},script=no,downscript=no"),
        };
        let mut device = format!("virtio-net-{},netdev=net0,mac={MAC}", transport.suffix());
        if transport == Transport::Pci {
            // What a firmware would boot from: nothing.
            device.push_str(",romfile=");
        }
        for offload in switched_off {
            device.push_str(&format!(",{}=off", offload.property()));
        }
        let mut arguments = vec!["-netdev".to_owned(), backend, "-device".to_owned(), device];
        if records {
            arguments.extend(["-object".to_owned(), "filter-replay,id=replay0,netdev=net0".to_owned()]);
        }
        arguments
    }
}

/// A disk: an image file, raw.
#[derive(Clone, Debug)]
pub struct Disk {
    image: PathBuf,
    writable: bool,
    /// A configuration of QEMU's fault injection.
    faults: Option<PathBuf>,
}

impl Disk {
    /// A disk that can't be written.
    pub fn read_only(image: impl AsRef<Path>) -> Self {
        Self { image: image.as_ref().to_owned(), writable: false, faults: None }
    }

    /// A disk that can be written.
    pub fn writable(image: impl AsRef<Path>) -> Self {
        Self { writable: true, ..Self::read_only(image) }
    }

    /// A read-only disk that fails as the file `faults` says (QEMU, docs/devel/blkdebug.txt).
    pub fn failing(image: impl AsRef<Path>, faults: impl AsRef<Path>) -> Self {
        Self { faults: Some(faults.as_ref().to_owned()), ..Self::read_only(image) }
    }

    /// `records`: what comes from outside is recorded.
    pub(super) fn arguments(&self, number: usize, transport: Transport, records: bool) -> Vec<OsString> {
        let (id, read_only) = (if records { "image" } else { "disk" }, if self.writable { "" } else { ",readonly=on" });
        let mut drive = OsString::from(format!("if=none,id={id}{number},format=raw{read_only},file="));
        if let Some(faults) = &self.faults {
            drive.push("blkdebug:");
            drive.push(escaped(faults));
            drive.push(":");
        }
        drive.push(escaped(&self.image));
        let mut arguments = vec!["-drive".into(), drive];
        if records {
            let recorder = format!("driver=blkreplay,if=none,image={id}{number},id=disk{number}{read_only}");
            arguments.extend(["-drive".into(), recorder.into()]);
        }
        let device = format!("virtio-blk-{},drive=disk{number}", transport.suffix());
        arguments.extend(["-device".into(), device.into()]);
        arguments
    }
}

/// A path as part of an option's value: QEMU wants commas twice.
pub(crate) fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}
