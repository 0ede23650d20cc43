//! The promise: systemd may own the listening sockets, and is told how the router is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use switchback_tests::{Backend, binary, eventually, http};

const SOON: Duration = Duration::from_secs(20);

/// A router with sockets that somebody else opened, as systemd would start it.
struct Activated {
    child: Child,
    notified: UnixDatagram,
    traffic: SocketAddr,
    admin: SocketAddr,
    folder: tempfile::TempDir,
}

impl Activated {
    /// Descriptor 3 is for traffic and 4 for the admin API; `names` is LISTEN_FDNAMES.
    fn start(blue: &Backend, names: &str) -> Activated {
        let folder = tempfile::tempdir().unwrap();
        let [traffic, admin] = [(), ()].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [at_traffic, at_admin] = [&traffic, &admin].map(|socket| socket.local_addr().unwrap());
        let notified = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        notified.set_read_timeout(Some(SOON)).unwrap();
        write_config(folder.path(), blue, at_traffic, at_admin, 100);
        // A shell moves the descriptors to where systemd puts them; exec keeps its process id.
        let script = "exec 3<&0 4<&2 0</dev/null 2>\"$1/log\"; export LISTEN_PID=$$; exec \"$2\" serve --config \"$1/switchback.toml\"";
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(folder.path()).arg(binary());
        command.env("LISTEN_FDS", "2").env("LISTEN_FDNAMES", names).env("NOTIFY_SOCKET", folder.path().join("notify"));
        command.stdin(Stdio::from(OwnedFd::from(traffic))).stderr(Stdio::from(OwnedFd::from(admin))).stdout(Stdio::null());
        let child = command.spawn().unwrap();
        Activated { child, notified, traffic: at_traffic, admin: at_admin, folder }
    }

    /// What systemd is told next.
    fn told(&self) -> String {
        let mut bytes = [0; 1_024];
        let count = self.notified.recv(&mut bytes).unwrap_or_else(|error| panic!("{error}: {}", self.log()));
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for Activated {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write_config(folder: &Path, blue: &Backend, traffic: SocketAddr, admin: SocketAddr, headers: u32) {
    let text = format!(
        "[listen]\ntraffic = \"{traffic}\"\nadmin = \"{admin}\"\nworkers = 1\n[limits]\nheaders = {headers}\n[state]\ndata_dir = {:?}\n\
         [[route]]\nname = \"search\"\n[route.pools.blue]\nendpoints = [\"{}\"]\n",
        folder.join("data").display().to_string(),
        blue.url()
    );
    std::fs::write(folder.join("switchback.toml"), text).unwrap();
}

#[test]
fn sockets_come_by_name_or_by_address_and_systemd_is_told() {
    let blue = Backend::start("blue");
    for names in ["traffic:admin", "", "switchback.socket:switchback.socket"] {
        let router = Activated::start(&blue, names);
        // The socket takes connections before there is a router.
        assert_eq!(http::get(router.traffic, "/rank").unwrap(), (200, "blue".to_owned()), "{names}");
        assert_eq!(http::get(router.admin, "/readyz").unwrap().0, 200, "{names}");
        assert!(router.told().starts_with("READY=1\nSTATUS=serving"), "{names}");
    }
}

#[test]
fn systemd_is_told_of_reload_and_end() {
    let blue = Backend::start("blue");
    let mut router = Activated::start(&blue, "traffic:admin");
    assert!(router.told().starts_with("READY=1"));
    write_config(router.folder.path(), &blue, router.traffic, router.admin, 50);
    router.signal("HUP");
    let reloading = router.told();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(router.told().trim_end(), "READY=1\nSTATUS=serving, config generation 2");
    router.signal("TERM");
    assert!(router.told().starts_with("STOPPING=1"));
    assert_eq!(router.child.wait().unwrap().code(), Some(0), "{}", router.log());
}

#[test]
fn systemd_is_told_who_took_over() {
    let blue = Backend::start("blue");
    let mut router = Activated::start(&blue, "traffic:admin");
    assert!(router.told().starts_with("READY=1"));
    router.signal("USR2");
    let told = std::iter::repeat_with(|| router.told()).find(|told| told.starts_with("MAINPID=")).unwrap();
    let pid: u32 = told.lines().next().unwrap().trim_start_matches("MAINPID=").parse().unwrap();
    assert_eq!(router.child.wait().unwrap().code(), Some(0), "{}", router.log());
    assert_ne!(pid, router.child.id());
    assert_eq!(http::get(router.traffic, "/rank").unwrap(), (200, "blue".to_owned()));
    assert!(Command::new("kill").arg(pid.to_string()).status().unwrap().success());
    eventually("nobody listens any more", SOON, || http::get(router.traffic, "/rank").is_err().then_some(()));
}

const UNITS: [&str; 2] = ["switchback.service", "switchback.socket"];

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/systemd")
}

#[test]
fn the_docs_show_the_units_as_they_are() {
    let page = std::fs::read_to_string(units().join("../OPERATIONS.md")).unwrap();
    for unit in UNITS {
        let text = std::fs::read_to_string(units().join(unit)).unwrap();
        assert!(page.contains(text.trim_end()), "docs/OPERATIONS.md shows docs/systemd/{unit} as it is");
    }
}

#[test]
fn systemd_takes_the_units_in_the_docs() {
    let verify = Command::new("systemd-analyze").arg("verify").args(UNITS.map(|unit| units().join(unit))).output();
    let Ok(output) = verify else {
        // Not by a macro, whose output is kept back for a test that passes.
        let _ = writeln!(
            std::io::stderr(),
            "LEFT OUT: systemd_takes_the_units_in_the_docs: there is no systemd-analyze here, so that nobody looked at docs/systemd; \
             scripts/install_test_tools.sh systemd installs it"
        );
        return;
    };
    // The program that the unit names is not installed on the machine that runs this.
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let about_ours = said.lines().filter(|line| line.contains("switchback") && !line.contains("is not executable"));
    assert_eq!(about_ours.collect::<Vec<_>>(), Vec::<&str>::new(), "{said}");
}
