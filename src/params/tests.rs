//! Command lines as administrators and hypervisors write them, and any other bytes.

use super::*;
use alloc::format;
use alloc::string::ToString;
use proptest::prelude::*;

fn parse(line: &str) -> Params {
    Params::parse(line.as_bytes()).unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn refused(line: &str) -> String {
    match Params::parse(line.as_bytes()) {
        Ok(params) => panic!("{line}: {params:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn without_options_everything_is_as_documented() {
    assert_eq!(parse(""), Params::default());
    assert_eq!(parse("  \t\n"), Params::default());
    assert_eq!(parse("\0-Z rubbish"), Params::default(), "the line ends at a NUL");
    assert_eq!((default_max_connections(0), default_max_connections(u64::MAX)), (512, 1_000_000));
    assert_eq!(default_max_connections(256 << 20), 32_768);
}

#[test]
fn every_option_is_understood() {
    let params = parse(
        "-s 3 -i 192.168.0.2/24 -i fd00::2/64 -g 192.168.0.1 -g fe80::1 -d 9.9.9.9 -e 2620:fe::fe -a \
         52:54:0:12:34:56/192.168.0.9 -a 52:54:00:12:34:57/fd00::9 -b 51712 -b 51728 -x 51744 -h -c 1000000 -P",
    );
    let expected = Params {
        delay_s: 3,
        addresses: ["192.168.0.2/24", "fd00::2/64"].iter().map(|text| text.parse().unwrap()).collect(),
        gateway_v4: Some(Ipv4Address::new(192, 168, 0, 1)),
        gateway_v6: Some("fe80::1".parse().unwrap()),
        primary_dns: Some("9.9.9.9".parse().unwrap()),
        secondary_dns: Some("2620:fe::fe".parse().unwrap()),
        neighbours: [("192.168.0.9", 0x56), ("fd00::9", 0x57)]
            .map(|(address, last)| StaticNeighbour {
                hardware_address: [0x52, 0x54, 0, 0x12, 0x34, last],
                address: address.parse().unwrap(),
            })
            .into_iter()
            .collect(),
        disks: [51712, 51728].into_iter().collect(),
        stats_disk: Some(51744),
        no_control_directory: true,
        max_connections: Some(1_000_000),
        prefetch: true,
        ..Params::default()
    };
    assert_eq!(params, expected);
}

#[test]
fn what_is_not_given_the_network_is_asked_for() {
    let asks = |line: &str| parse(line).network().map(|config| (config.dhcp, config.slaac)).unwrap();
    assert_eq!(asks(""), (true, true));
    assert_eq!(asks("-i 10.0.0.2/8"), (false, true));
    assert_eq!(asks("-i fd00::2/64"), (true, false));
    assert_eq!(asks("-i 10.0.0.2/8 -i fd00::2/64 -i fe80::2/64"), (false, false));
    let config = parse("-i 10.0.0.2/8 -g 10.0.0.1 -d 9.9.9.9 -e fd00::53 -a 2:0:0:0:0:1/10.0.0.9").network().unwrap();
    assert_eq!((config.shell_port, config.serving_port, config.dns_servers.len()), (Some(23), 80, 2));
    assert_eq!((config.gateway_v4, config.static_neighbours.len()), (Some(Ipv4Address::new(10, 0, 0, 1)), 1));
    assert_eq!(parse("-g 10.0.0.1").network().unwrap().gateway_v4, Some(Ipv4Address::new(10, 0, 0, 1)), "with DHCP");
    // What contradicts itself is refused at once.
    for (line, message) in [
        ("-i 10.0.0.2/8 -g 11.0.0.1", "11.0.0.1 is in none"),
        ("-i 10.255.255.255/8", "10.255.255.255 is no host's address"),
        ("-i fd00::2/64 -i fd00::2/48", "fd00::2 is given twice"),
        ("-a 2:0:0:0:0:1/10.0.0.9 -a 2:0:0:0:0:2/10.0.0.9", "10.0.0.9"),
        ("-g 224.0.0.1", "224.0.0.1 is no host's address"),
    ] {
        assert!(refused(line).contains(message), "{line}: {}", refused(line));
    }
}

#[test]
fn options_are_read_as_getopt_does() {
    let expected = parse("-h -P -i 10.0.0.2/8 -b 0");
    for line in
        ["-hPi10.0.0.2/8 -b0", "-P -hb 0 -i10.0.0.2/8", "-'hP' \"-i\" '10.0.0.2/8' -b \"0\"", "-hPb0 -i 10.0.0.2/8 --"]
    {
        assert_eq!(parse(line), expected, "{line}");
    }
    assert_eq!(refused("-i -h"), refused("-i-h"), "an argument may look like an option");
    assert!(refused("-- -h").contains("'-h'"));
    assert!(refused("-h -").contains("'-' belongs to no option"));
}

#[test]
fn what_is_wrong_is_said_with_what_was_given() {
    for (line, messages) in [
        ("-s x", &["invalid delay specified", "'x'"][..]),
        ("-s -1", &["invalid delay specified", "'-1'"]),
        ("-s +1", &["invalid delay specified"]),
        ("-s 4294967296", &["invalid delay specified"]),
        ("-s ''", &["invalid delay specified"]),
        ("-i 10.0.0.2", &["invalid host IP in CIDR notation specified (e.g., 192.168.0.2/24", "'10.0.0.2'"]),
        ("-i 10.0.0.256/8", &["invalid host IP in CIDR notation specified"]),
        ("-i 10.0.0.2/33", &["invalid host IP in CIDR notation specified"]),
        ("-i fd00::2/129", &["invalid host IP in CIDR notation specified"]),
        ("-i fd00::2/256", &["invalid host IP in CIDR notation specified"]),
        ("-i 10.0.0.2/", &["invalid host IP in CIDR notation specified"]),
        ("-i 10.0.0.2/24/1", &["invalid host IP in CIDR notation specified"]),
        ("-i 10.0.0.2/8 -i 10.0.0.3/8", &["only one IPv4 address", "'10.0.0.3/8'"]),
        ("-g 10.0.0", &["invalid gateway IP specified", "'10.0.0'"]),
        ("-g 10.0.0.1/8", &["invalid gateway IP specified"]),
        ("-g 10.0.0.1 -g 10.0.0.2", &["only one gateway", "'10.0.0.2'"]),
        ("-d x", &["invalid DNS server IP specified", "'x'"]),
        ("-e 224.0.0.1", &["invalid DNS server IP specified"]),
        ("-d 9.9.9.9 -d 1.1.1.1", &["'1.1.1.1'", "each once"]),
        ("-a 52:54:00:12:34:56", &["invalid static ARP entry specified"]),
        ("-a 52:54:00:12:34/10.0.0.1", &["invalid static ARP entry specified"]),
        ("-a 52:54:00:12:34:56:78/10.0.0.1", &["invalid static ARP entry specified"]),
        ("-a 52:54:00:12:34:+6/10.0.0.1", &["invalid static ARP entry specified"]),
        ("-a 52:54:00:12:34:156/10.0.0.1", &["invalid static ARP entry specified"]),
        ("-a 53:54:00:12:34:56/10.0.0.1", &["invalid static ARP entry specified"]),
        ("-a 0:0:0:0:0:0/10.0.0.1", &["invalid static ARP entry specified"]),
        ("-a 52:54:00:12:34:56/224.0.0.1", &["invalid static ARP entry specified"]),
        ("-b xvda", &["invalid block device specified", "'xvda'"]),
        ("-b 1 -b 1", &["block device 1 is specified twice"]),
        ("-b 1 -x 1", &["block device 1 is specified twice"]),
        ("-x 1 -b 1", &["block device 1 is specified twice"]),
        ("-x 1 -x 2", &["only one stats devices can be specified", "'2'"]),
        ("-c 0", &["invalid number of http connections", "'0'"]),
        ("-c many", &["invalid number of http connections", "'many'"]),
        ("-c ''", &["invalid number of http connections"]),
        ("-c 1000001", &["at most 1000000 http connections supported", "'1000001'"]),
        ("-c 99999999999999999999", &["at most 1000000 http connections supported"]),
        ("-Z", &["unknown option -Z"]),
        ("-hZ", &["unknown option -Z"]),
        ("--help", &["unknown option --"]),
        ("-h -c", &["option -c needs an argument"]),
        ("'-h", &["a quote (') is not closed"]),
        ("10.0.0.2/24", &["'10.0.0.2/24' belongs to no option"]),
        ("\x1b[2J-h", &["belongs to no option"]),
    ] {
        let error = refused(line);
        assert!(messages.iter().all(|message| error.contains(message)), "{line}: {error}");
        assert!(!error.contains(|c: char| c.is_control()), "{line}: {error:?}");
    }
    let long = refused(&format!("-b {}", "9".repeat(5000)));
    assert!(long.len() < 200 && long.contains("999..."), "{long}");
}

#[test]
fn every_limit_has_an_answer() {
    let times = |count: u32, option: &dyn Fn(u32) -> String| (0..count).map(option).collect::<String>();
    let disk = |i| format!("-b {i} ");
    assert_eq!(parse(&times(64, &disk)).disks.len(), 64);
    assert!(refused(&times(65, &disk)).contains("at most 64 block devices"));
    let neighbour = |i| format!("-a 2:0:0:0:0:{i:x}/10.0.0.{i} ");
    assert_eq!(parse(&times(16, &neighbour)).neighbours.len(), 16);
    assert!(refused(&times(17, &neighbour)).contains("At most 16 static ARP entries can be specified"));
    let address = |i| format!("-i fd00::{i}/64 ");
    let with_ipv4 = |count| format!("-i 10.0.0.2/8 {}", times(count, &address));
    assert_eq!(parse(&with_ipv4(6)).addresses.len(), 7);
    assert!(refused(&times(7, &address)).contains("beside the 1 that the network may announce"));
    assert!(refused(&with_ipv4(7)).contains("at most 7 addresses"));
    let device = |i| format!("virtio_mmio.device=512@0x{i}000:5 ");
    let devices = parse(&times(65, &device));
    assert_eq!((devices.virtio_mmio.len(), devices.ignored.len()), (64, 1));
    assert!(refused(&" ".repeat(MAX_LINE_BYTES + 1)).contains("16385 bytes is too long"));
    parse(&" ".repeat(MAX_LINE_BYTES));
}

#[test]
fn what_a_hypervisor_adds_is_kept_apart() {
    let params = parse(
        "console=ttyS0 reboot=k panic=1 pci=off nomodule i8042.noaux -i 10.0.0.2/8 quiet root=/dev/vda rw \
         virtio_mmio.device=4K@0xd0000000:5 virtio_mmio.device=512@0xfeb00e00:12 virtio_mmio.device=512@nowhere:12",
    );
    let devices: Vec<u64> = params.virtio_mmio.iter().map(|device| device.address).collect();
    assert_eq!(devices, [0xd000_0000, 0xfeb0_0e00]);
    assert_eq!(params.addresses.len(), 1);
    assert_eq!(params.ignored.first().unwrap(), "console=ttyS0");
    assert_eq!(params.ignored.last().unwrap(), "virtio_mmio.device=512@nowhere:12");
    assert_eq!(params.ignored.len(), 10);
}

#[test]
fn text_that_is_no_text_is_refused() {
    assert_eq!(Params::parse(b"-h \xff"), Err(ParamsError::NotUtf8(3)));
    assert_eq!(parse("-h\0\u{ff}"), parse("-h"));
}

/// Lines that come close to good ones.
fn near_misses() -> impl Strategy<Value = Vec<u8>> {
    let words = prop_oneof![
        Just("-i"),
        Just("-g"),
        Just("-a"),
        Just("-hPc"),
        Just("-b"),
        Just("-s"),
        Just("-x"),
        Just("-d"),
        Just("10.0.0.2"),
        Just("/24"),
        Just("fe80::1"),
        Just("52:54:00:12:34:56"),
        Just("/"),
        Just("'"),
        Just("\""),
        Just(" "),
        Just("4294967296"),
        Just("virtio_mmio.device="),
        Just("4K"),
        Just("@0x"),
        Just("ffffffffffffffff"),
        Just(":1"),
        Just("="),
        Just("--"),
        Just("\u{fe}"),
        Just("0"),
    ];
    prop::collection::vec(words, 0..24).prop_map(|words| words.concat().into_bytes())
}

proptest! {
    #[test]
    fn no_bytes_panic(line in prop_oneof![prop::collection::vec(any::<u8>(), 0..300), near_misses()]) {
        match Params::parse(&line) {
            Ok(params) => {
                prop_assert!(params.max_connections.is_none_or(|most| (1..=MAX_CONNECTIONS).contains(&most)));
                prop_assert!(params.virtio_mmio.iter().all(|d| d.address.checked_add(d.size_bytes).is_some()));
            }
            Err(error) => prop_assert!(!error.to_string().contains(|c: char| c.is_control())),
        }
    }
}
