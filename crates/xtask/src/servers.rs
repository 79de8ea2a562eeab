//! `cargo xtask servers`: the servers that tests run against, installed or fetched below the target directory.
//!
//! Packages come through apt from whatever Debian mirror the machine is set up with, into a root of their own: no root's
//! rights, nothing installed, no daemon started. Signatures are apt's to check, the pinned checksum ours.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

use crate::process;
use crate::workspace::Workspace;

/// A server, and the package that has it.
#[derive(Debug)]
struct Server {
    name: &'static str,
    suite: &'static str,
    package: &'static str,
    /// Where the package puts the program.
    program: &'static str,
    /// Of the package, by Debian's name for the architecture.
    sha256: &'static [(&'static str, &'static str)],
}

/// Debian's last release that has Consul; when it moves to the archive of old releases, [`MIRROR`] points there.
const CONSUL: Server = Server {
    name: "consul",
    suite: "bullseye",
    package: "consul=1.8.7+dfsg1-2+b3",
    program: "usr/bin/consul",
    sha256: &[(
        "amd64",
        "e4e888bba104daba1d9161f49bfc52649a7e4efd45b1a7ead5bc54f2cb9c89d9",
    )],
};

const ALL: &[Server] = &[CONSUL];

/// Names another mirror than apt is set up with.
const MIRROR: &str = "TOWER_MESH_DEBIAN_MIRROR";

/// What Debian's own packages are signed with, also where apt is set up for a derivative.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

pub(crate) fn run() -> ExitCode {
    let workspace = match Workspace::locate() {
        Ok(workspace) => workspace,
        Err(error) => return failed(&error),
    };
    match fetch_missing(workspace.target()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &str) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

/// Makes sure that every server is there.
///
/// # Errors
///
/// A sentence that says which is not to be had, and why.
pub(crate) fn fetch_missing(target: &Path) -> Result<(), String> {
    for server in ALL {
        let program = match server.find(target) {
            Some(program) => program,
            None => server.fetch(target).map_err(|error| {
                format!(
                    "{} is neither installed nor to be had as a Debian package: {error}",
                    server.name
                )
            })?,
        };
        println!("{}: {}", server.name, program.display());
    }
    Ok(())
}

/// The servers that tests would lack.
pub(crate) fn missing(target: &Path) -> Vec<&'static str> {
    let missing = ALL.iter().filter(|server| server.find(target).is_none());
    missing.map(|server| server.name).collect()
}

impl Server {
    /// The one on the path, or the one that was fetched.
    fn find(&self, target: &Path) -> Option<PathBuf> {
        let candidates = [self.name.into(), self.root(target).join(self.program)];
        candidates
            .into_iter()
            .find(|program| process::succeeds(Command::new(program).arg("version")))
    }

    fn root(&self, target: &Path) -> PathBuf {
        target.join("servers").join(self.name)
    }

    fn fetch(&self, target: &Path) -> Result<PathBuf, String> {
        let root = self.root(target);
        println!("{}: fetching it below {}", self.name, root.display());
        // Beside it first: what was interrupted must not look like a server.
        let unfinished = target.join("servers").join(format!("{}.part", self.name));
        let _ = fs::remove_dir_all(&unfinished);
        let apt = Apt::set_up(&unfinished.join("apt"), self.suite)?;
        let package = apt.download(self.package)?;
        self.verify(&package, &apt.architecture)?;
        let unpacked = unfinished.join("root");
        let mut unpack = Command::new("dpkg-deb");
        process::output(unpack.arg("--extract").arg(&package).arg(&unpacked))?;
        let _ = fs::remove_dir_all(&root);
        fs::rename(&unpacked, &root).map_err(text)?;
        let _ = fs::remove_dir_all(&unfinished);
        self.find(target)
            .ok_or_else(|| "what was fetched does not run".to_owned())
    }

    /// An architecture without a pinned checksum is left to apt's signatures.
    fn verify(&self, package: &Path, architecture: &str) -> Result<(), String> {
        let pinned = self.sha256.iter().find(|(arch, _)| *arch == architecture);
        let Some((_, expected)) = pinned else {
            return Ok(());
        };
        let found = process::output(Command::new("sha256sum").arg("--binary").arg(package))?;
        check(expected, &found.stdout)
    }
}

fn check(expected: &str, found: &str) -> Result<(), String> {
    // GNU's escapes a name with a backslash in it, and says so before the sum.
    let found = found.trim_start_matches('\\').split(' ').next();
    match found {
        Some(found) if found == expected => Ok(()),
        _ => Err(format!(
            "the package is not the one that was pinned: sha256 {expected} expected, {} found",
            found.unwrap_or("nothing")
        )),
    }
}

/// An apt of our own: its lists, its caches, one suite of the machine's mirror.
struct Apt {
    directory: PathBuf,
    options: Vec<String>,
    architecture: String,
}

impl Apt {
    fn set_up(directory: &Path, suite: &str) -> Result<Self, String> {
        let at = |path: &str| directory.join(path);
        for path in [
            "etc/apt.conf.d",
            "etc/preferences.d",
            "etc/trusted.gpg.d",
            "state/lists/partial",
            "cache/archives/partial",
        ] {
            fs::create_dir_all(at(path)).map_err(text)?;
        }
        let architecture = process::output(Command::new("dpkg").arg("--print-architecture"))?;
        let architecture = architecture.stdout.trim().to_owned();
        let mirror = mirror()?;
        let sources =
            format!("deb [arch={architecture} signed-by={KEYRING}] {mirror} {suite} main\n");
        fs::write(at("etc/sources.list"), sources).map_err(text)?;
        fs::write(at("status"), "").map_err(text)?;
        let dir = |option: &str, path: &str| format!("Dir::{option}={}", at(path).display());
        let options = vec![
            dir("Etc", "etc"),
            dir("Etc::SourceList", "etc/sources.list"),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            dir("State", "state"),
            dir("State::status", "status"),
            dir("Cache", "cache"),
            format!("APT::Architecture={architecture}"),
            "Acquire::Languages=none".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
        ];
        let apt = Self {
            directory: directory.to_owned(),
            options,
            architecture,
        };
        process::output(apt.command().arg("update"))?;
        Ok(apt)
    }

    fn download(&self, package: &str) -> Result<PathBuf, String> {
        process::output(self.command().args(["download", package]))?;
        let files = fs::read_dir(&self.directory).map_err(text)?.flatten();
        files
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .ok_or_else(|| "apt-get downloaded nothing".to_owned())
    }

    fn command(&self) -> Command {
        let mut command = Command::new("apt-get");
        command.current_dir(&self.directory).arg("--quiet=2");
        for option in &self.options {
            command.args(["-o", option]);
        }
        command
    }
}

/// The Debian mirror that apt is set up with.
fn mirror() -> Result<String, String> {
    if let Some(mirror) = env::var_os(MIRROR) {
        return Ok(mirror.to_string_lossy().into_owned());
    }
    let mut targets = Command::new("apt-get");
    targets.args([
        "indextargets",
        "--format",
        "$(SITE)",
        "Identifier: Packages",
    ]);
    debian(&process::output(&mut targets)?.stdout)
        .ok_or_else(|| format!("apt knows no mirror of Debian; name one in {MIRROR}"))
}

/// The first site that is Debian's archive, and not that of its security updates.
fn debian(sites: &str) -> Option<String> {
    let site = |line: &&str| line.trim_end_matches('/').ends_with("/debian");
    sites.lines().map(str::trim).find(site).map(str::to_owned)
}

fn text(error: std::io::Error) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_that_is_not_the_pinned_one_is_refused() {
        assert_eq!(check("ab", "ab *consul.deb\n"), Ok(()));
        assert_eq!(check("ab", "\\ab *a\\\\b.deb\n"), Ok(()));
        let refused = check("ab", "cd *consul.deb\n").unwrap_err();
        assert!(refused.contains("ab expected, cd found"), "{refused}");
        assert!(check("ab", "").is_err());
    }

    #[test]
    fn the_mirror_is_the_archives_not_that_of_security_updates() {
        let sites =
            "http://a.example/debian-security\nhttp://b.example/debian\nhttp://c.example/debian\n";
        assert_eq!(debian(sites).as_deref(), Some("http://b.example/debian"));
        assert_eq!(debian("http://a.example/ubuntu\n"), None);
    }
}
