//! Two network interfaces with a bad wire between them: `minicache bridge`.
//!
//! Whatever stands at their other ends (hosts, namespaces, virtual machines) can so be measured over a bad network. What one
//! interface sends, the other receives; what goes wrong on the way is [`minicache::rings::impair`]'s. Where nothing goes wrong that
//! needs segments, super-frames cross as they are.

mod forward;

use std::fmt::Write as _;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time;

use anyhow::{Context, bail, ensure};
use indicatif::HumanBytes;
use minicache::rings::host::{Tap, TapWatch};
use minicache::rings::impair::{Impaired, Impairments};
use minicache::rings::{NetEvent, NetQueue};
use minicache::stats::Stats;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGINT, SIGTERM};
use smoltcp::time::Instant;

use crate::impairment;
use crate::terminal::say;
use forward::{Failures, Forward};

/// Frames that one direction carries before it is the other's turn.
const BUDGET: usize = 64;

/// Rounds between two looks at signals while there is no time to sleep.
const ROUNDS: usize = 64;

/// Arguments of `minicache bridge`.
#[derive(clap::Args)]
pub struct Arguments {
    /// A TAP interface; it is made if it is not there (which takes root)
    #[arg(value_name = "TAP_A")]
    a: String,

    /// The other one
    #[arg(value_name = "TAP_B")]
    b: String,

    /// What goes wrong between them, in both directions or, with rx. (A to B) and tx. (B to A), in one: such as
    /// loss=1%,delay=20ms. Give "help" to see everything
    #[arg(long, value_name = "SPEC")]
    impair: Option<Impairments>,
}

/// The two ends and the wire.
struct Bridge {
    names: [String; 2],
    a: Impaired<Tap>,
    b: Tap,
    watches: [TapWatch; 2],
    stats: [Rc<Stats>; 2],
    a_to_b: Forward,
    b_to_a: Forward,
    impairments: Impairments,
    /// Readable when a signal has come.
    signals: UnixStream,
    started: time::Instant,
}

/// Runs `minicache bridge`.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments { a, b, impair } = arguments;
    ensure!(a != b, "a wire has two ends: give two different interfaces");
    let impairments = impair.unwrap_or(Impairments::NONE);
    let mut bridge = Bridge::new([a, b], impairments)?;
    bridge.tell_start();
    let end = bridge.carry();
    bridge.tell_end();
    end
}

impl Bridge {
    fn new(names: [String; 2], impairments: Impairments) -> anyhow::Result<Self> {
        let mut seeds = [[0; 6]; 2];
        seeds.iter_mut().try_for_each(|seed| getrandom::fill(seed)).context("the system gives no random numbers")?;
        let stats: [Rc<Stats>; 2] = Default::default();
        let a = Tap::open_wire(&names[0], seeds[0], stats[0].clone())?;
        let b = Tap::open_wire(&names[1], seeds[1], stats[1].clone())?;
        let watches = [a.watch(), b.watch()];
        let (signals, sender) = UnixStream::pair().context("can't watch signals")?;
        for signal in [SIGINT, SIGTERM] {
            let sender = sender.try_clone().context("can't watch signals")?;
            signal_hook::low_level::pipe::register(signal, sender).context("can't watch signals")?;
        }
        let started = time::Instant::now();
        let clock = Box::new(move || now_since(started));
        Ok(Self {
            names,
            a: Impaired::new(a, impairments, clock, Rc::default()),
            b,
            watches,
            stats,
            a_to_b: Forward::default(),
            b_to_a: Forward::default(),
            impairments,
            signals,
            started,
        })
    }

    /// Carries frames until a signal comes (fine) or an interface goes (an error).
    fn carry(&mut self) -> anyhow::Result<()> {
        loop {
            for _ in 0..ROUNDS {
                if !self.round()? {
                    break;
                }
            }
            let awake = self.a.arm() | self.b.arm();
            if self.sleep(awake)? {
                return Ok(());
            }
        }
    }

    /// One round; true if there was anything to do.
    fn round(&mut self) -> anyhow::Result<bool> {
        check(&mut self.a, &self.names[0])?;
        check(&mut self.b, &self.names[1])?;
        self.a.reclaim();
        self.b.reclaim();
        let mut frames = self.a_to_b.run(&mut self.a, &mut self.b, BUDGET);
        frames += self.b_to_a.run(&mut self.b, &mut self.a, BUDGET);
        self.b.flush();
        self.a.flush();
        Ok(frames > 0)
    }

    /// Sleeps until a frame comes or one on the wire arrives, or with `awake` not at all. True if a signal has come.
    fn sleep(&self, awake: bool) -> anyhow::Result<bool> {
        let now = now_since(self.started);
        let deadline = if awake { Some(now) } else { self.a.next_deadline() };
        let patience = deadline.map(|at| at.total_micros().saturating_sub(now.total_micros()).max(0));
        let timeout = patience.map(|us| Timespec { tv_sec: us / 1_000_000, tv_nsec: us % 1_000_000 * 1000 });
        let [a, b] = &self.watches;
        let mut sources = [
            PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.a.inner().news(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.b.news(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.a.inner().frames(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.b.frames(), PollFlags::IN),
        ];
        match poll(&mut sources, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(false),
            Err(error) => bail!("can't wait for frames: {error}"),
        }
        let ready = |index: usize| !sources[index].revents().is_empty();
        if ready(1) {
            a.set_news();
        }
        if ready(2) {
            b.set_news();
        }
        Ok(ready(0))
    }

    fn tell_start(&self) {
        let [a, b] = &self.names;
        let wire = match self.impairments {
            Impairments::NONE => "a perfect wire".to_owned(),
            impairments => format!("{impairments}"),
        };
        say(&format!("Carrying frames between {a} and {b}: {wire}"));
        say("Give each to a host (as root), for example to two network namespaces X and Y:");
        for (name, space, address) in [(a, 'X', "10.9.0.1/24"), (b, 'Y', "10.9.0.2/24")] {
            say(&format!("  ip link set {name} netns {space}"));
            say(&format!("  ip -n {space} address add {address} dev {name}"));
            say(&format!("  ip -n {space} link set {name} up"));
        }
        say("Press Ctrl-C to stop.");
    }

    fn tell_end(&self) {
        let [a, b] = &self.names;
        say(&format!("Stopped after {:.1} s.", self.started.elapsed().as_secs_f64()));
        let counts = self.a.counts();
        let [at_a, at_b] = &self.stats;
        let directions = [
            (format!("{a} to {b}"), at_a, at_b, &self.a_to_b, &self.impairments.rx, &counts.rx),
            (format!("{b} to {a}"), at_b, at_a, &self.b_to_a, &self.impairments.tx, &counts.tx),
        ];
        for (direction, from, to, forward, impairment, counts) in directions {
            say(&format!("  {}", describe(&direction, from, to, &forward.failures)));
            if let Some(line) = impairment::summary(&direction, impairment, counts) {
                say(&format!("  {line}"));
            }
        }
        if counts.malformed > 0 {
            say(&format!("  {} frames that make no sense were dropped", counts.malformed));
        }
    }
}

/// What a direction has carried, in a line.
fn describe(direction: &str, from: &Stats, to: &Stats, failures: &Failures) -> String {
    let (came, went, bytes) = (from.rx_frames.get(), to.tx_frames.get(), HumanBytes(to.tx_bytes.get()));
    let mut line = format!("{direction}: {came} frames came in, {went} went out with {bytes}");
    let failures = [
        (failures.refused, "that the interface had no room for"),
        (failures.too_long, "longer than a frame may be"),
        (failures.malformed, "that make no sense"),
    ];
    for (count, what) in failures.iter().filter(|(count, _)| *count > 0) {
        write!(line, "; {count} {what}").expect("a String takes everything");
    }
    line
}

/// Takes the news of an interface in.
fn check(queue: &mut impl NetQueue, name: &str) -> anyhow::Result<()> {
    while let Some(event) = queue.event() {
        if event == NetEvent::Gone {
            bail!(
                "the interface {name} has been deleted, and without it there is no wire: start again to make it anew"
            );
        }
    }
    Ok(())
}

fn now_since(started: time::Instant) -> Instant {
    Instant::from_micros(started.elapsed().as_micros() as i64)
}
