//! A namespace with a server at one end of a TAP interface and Linux at the other.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use testbed::{Namespace, files};

/// The server's end of the interface, over IPv4 and IPv6, as URLs have it.
pub const SERVERS: [&str; 2] = ["10.0.0.2", "[fd00::2]"];

/// Longer than anything here takes: a test that hangs fails.
const PATIENCE: Duration = Duration::from_secs(120);

/// True if such tests can't be run here, which is said, with why.
pub fn is_impossible(programs: &[&str]) -> bool {
    let missing =
        programs.iter().find(|program| Command::new("which").arg(program).output().is_ok_and(|o| !o.status.success()));
    let missing = missing.map(|program| format!("{program} is missing"));
    let reason = testbed::obstacle().or(missing);
    if let Some(reason) = &reason {
        println!("not run: {reason}");
    }
    reason.is_some()
}

/// A file to be served.
pub struct Object {
    pub name: String,
    pub content: Vec<u8>,
}

/// Makes objects of these sizes, whose content is noise, so that no byte in the wrong place goes unnoticed.
pub fn noise(sizes: &[usize]) -> Vec<Object> {
    let mut random = fastrand::Rng::with_seed(0x6d63);
    let make = |(index, size): (usize, &usize)| {
        let mut content = vec![0; *size];
        random.fill(&mut content);
        Object { name: format!("{index}-{size}.bin"), content }
    };
    sizes.iter().enumerate().map(make).collect()
}

/// The files of `demofs`.
pub fn demofs() -> Vec<Object> {
    let files = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../demofs")).unwrap();
    files.into_iter().map(|(name, content)| Object { name, content }).collect()
}

/// A server, its namespace and what it serves.
pub struct Bed {
    server: Child,
    pub namespace: Namespace,
    pub objects: Vec<Object>,
    pub folder: PathBuf,
    /// Where clients put what they get.
    pub downloads: PathBuf,
    _temporary: tempfile::TempDir,
}

impl Bed {
    /// Serves the objects over a TAP interface called `mc0`, with these options besides.
    pub fn new(objects: Vec<Object>, options: &[&str]) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let (folder, downloads) = (temporary.path().join("www"), temporary.path().join("downloads"));
        fs::create_dir(&downloads).unwrap();
        for object in &objects {
            let path = folder.join(&object.name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, &object.content).unwrap();
        }
        let namespace = Namespace::new().unwrap();
        let mut command = namespace.command(env!("CARGO_BIN_EXE_minicache"));
        command.arg("serve").arg(&folder).args(["--tap", "mc0", "--address", "10.0.0.2/24", "--address", "fd00::2/64"]);
        let server = command.args(options).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut bed = Self { server, namespace, objects, folder, downloads, _temporary: temporary };
        bed.set_up();
        bed
    }

    /// Does what an administrator does to the host's end.
    fn set_up(&mut self) {
        if let Err(error) = self.namespace.wait_for_interface("mc0") {
            // Ends it where it has not ended by itself.
            let _ = self.server.kill();
            panic!("{error}; the server said: {}", self.read_all());
        }
        self.run("ip", &["address", "add", "10.0.0.1/24", "dev", "mc0"]);
        self.run("ip", &["-6", "address", "add", "fd00::1/64", "dev", "mc0", "nodad"]);
        self.run("ip", &["link", "set", "mc0", "up"]);
    }

    /// Runs a program among the clients; it must succeed. Returns what it printed.
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        self.namespace.run(program, arguments).unwrap()
    }

    /// Gets every object with curl, from the server of that address, several at a time, and compares each.
    pub fn fetch_all(&self, server: &str, at_a_time: usize) {
        let mut command = self.namespace.command("curl");
        command.args([
            "--silent",
            "--show-error",
            "--fail",
            "--globoff",
            "--no-buffer",
            "--parallel",
            "--parallel-max",
        ]);
        command.arg(at_a_time.to_string()).args(["--max-time", &PATIENCE.as_secs().to_string()]);
        let target = |index: usize| self.downloads.join(index.to_string());
        for (index, object) in self.objects.iter().enumerate() {
            command.arg("--output").arg(target(index)).arg(format!("http://{server}/{}", object.name));
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "curl: {}", String::from_utf8_lossy(&output.stderr));
        for (index, object) in self.objects.iter().enumerate() {
            // Of nothing curl makes no file.
            let got = fs::read(target(index)).unwrap_or_default();
            assert!(got == object.content, "{} of {server} differs: {} bytes", object.name, got.len());
            let _ = fs::remove_file(target(index));
        }
    }

    /// Ends the server by a signal and returns what it said, which must be an orderly end.
    pub fn finish(mut self) -> String {
        kill_process(Pid::from_child(&self.server), Signal::TERM).unwrap();
        let (success, said) = self.wait();
        assert!(success, "{said}");
        said
    }

    /// Waits for the server's end, and returns whether it calls it a success, and what it said.
    pub fn wait(&mut self) -> (bool, String) {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.server.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "the server does not end");
            sleep(Duration::from_millis(20));
        };
        let said = self.read_all();
        assert!(!said.contains("panicked"), "{said}");
        (status.success(), said)
    }

    fn read_all(&mut self) -> String {
        let mut said = String::new();
        self.server.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        self.server.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        said
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
