//! What an attacker writes where a name belongs, and what they commit: none of it may run, and none may reach outside.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

use crate::Failed;

/// What payloads would make and spoil.
#[derive(Debug)]
pub struct Trap {
    dir: TempDir,
    was: BTreeMap<PathBuf, Vec<u8>>,
}

impl Trap {
    /// Sets it.
    ///
    /// # Errors
    /// When its files cannot be made.
    pub fn new() -> Result<Self, Failed> {
        let dir = tempfile::Builder::new().prefix("sdp-trap-").tempdir()?;
        let outside = dir.path().join("outside");
        fs::create_dir_all(outside.join("config/builds"))?;
        for name in ["secret", "planted", "config.php", "config/config.php", "config/builds/kept"] {
            fs::write(outside.join(name), format!("<?php\n$config['eredar_url'] = 'http://{name}/';\n"))?;
        }
        let was = tree(&outside)?;
        Ok(Self { dir, was })
    }

    /// The file that whatever is executed makes.
    pub fn marker(&self) -> PathBuf {
        self.dir.path().join("executed")
    }

    /// What is to stay as it is.
    pub fn outside(&self) -> PathBuf {
        self.dir.path().join("outside")
    }

    /// What was executed or written outside, a line each.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn sprung(&self) -> Result<Vec<String>, Failed> {
        let now = tree(&self.outside())?;
        let paths = now.keys().chain(self.was.keys());
        let changed = paths.filter(|path| now.get(*path) != self.was.get(*path));
        let mut sprung: Vec<_> = changed.map(|path| format!("{} is not as it was", path.display())).collect();
        sprung.extend(self.marker().exists().then(|| "something was executed".to_owned()));
        Ok(sprung)
    }
}

/// Every file below a folder; folders too, as empty ones.
fn tree(folder: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>, Failed> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.append(&mut tree(&path)?);
            found.insert(path, Vec::new());
        } else {
            let bytes = fs::read(&path)?;
            found.insert(path, bytes);
        }
    }
    Ok(found)
}

/// Options of git, ssh and others, and remotes that run commands. `@M` is the marker, `@O` what is outside.
const OPTIONS: &[&str] = &[
    "--upload-pack=touch @M",
    "--upload-pack=@M",
    "--upload-pack=sh -c 'touch @M'",
    "--upload-pack",
    "-u@M",
    "-oProxyCommand=touch @M",
    "-oProxyCommand=touch${IFS}@M",
    "-oProxyCommand",
    "--receive-pack=touch @M",
    "--exec=touch @M",
    "--config=core.sshCommand=touch @M",
    "-c core.fsmonitor=touch @M",
    "--template=@O",
    "--output=@O/secret",
    "--git-dir=@O",
    "--work-tree=@O",
    "--separate-git-dir=@O",
    "-C@O",
    "--",
    "-",
    "--help",
    "--version",
    "-rf",
    "-exec",
    "--toolexec=touch @M",
    "-toolexec=touch @M",
    "-o@O/secret",
    "--network=host",
    "--privileged",
    "--mount=type=bind,src=/,dst=/x",
    "ext::sh -c touch% @M",
    "ext::touch @M",
    "fd::17/x",
    "file://@O",
    "ssh://-oProxyCommand=touch%20@M/x",
    "git://-oProxyCommand=x/y",
    "user@-oProxyCommand=touch:x",
    "http://127.0.0.1:1/x",
];

/// Paths to where nobody is to go.
const PATHS: &[&str] = &[
    "..",
    ".",
    "../x",
    "../../x",
    "../../../../etc/passwd",
    "..\\..\\x",
    "a/../../b",
    "a/..",
    "a/../../../@O/secret",
    "/etc/passwd",
    "@O",
    "@O/secret",
    "//x",
    "~",
    "~root/x",
    "~/x",
    "C:\\x",
    "\\\\host\\share",
    "%2e%2e%2fx",
    "..%2f..%2fx",
    "%00",
    "%252e%252e",
    "....//x",
    "..;/x",
    ".git",
    ".git/hooks/post-checkout",
    ".GIT/config",
    "git~1",
    ".git/",
    ".g\u{200c}it",
    ".git\u{0}x",
    ".git::$INDEX_ALLOCATION",
    ".sdp",
    ".sdp/builds",
    ".gitmodules",
    "worktrees/../../x",
    "refs/../../x",
    "/proc/self/environ",
    "/dev/stdin",
    "CON",
    "NUL",
    "aux.php",
];

/// What a shell, or another interpreter, would take for more than a name.
const COMMANDS: &[&str] = &[
    "$(touch @M)",
    "`touch @M`",
    ";touch @M",
    ";touch @M;",
    "|touch @M",
    "&touch @M",
    "&&touch @M",
    "||touch @M",
    ">@M",
    ">>@M",
    "<@M",
    "$(touch${IFS}@M)",
    ";touch${IFS}@M",
    ";{touch,@M}",
    "'; touch @M; '",
    "\"; touch @M; \"",
    "';touch${IFS}@M;'",
    "\";touch${IFS}@M;\"",
    "\ntouch @M\n",
    "\r\ntouch @M\r\n",
    "%0atouch%20@M",
    "${x:-$(touch @M)}",
    "!touch @M",
    "$PATH",
    "$$",
    "'",
    "\"",
    "`",
    "\\",
    "#x",
    "*",
    "?",
    "[a-z]",
    "{a,b}",
    "%s%n",
    "{{7*7}}",
    "<?php system('touch @M'); ?>",
    "'.system('touch${IFS}@M').'",
    "<script>alert(1)</script>",
    "' OR 1=1 --",
    "'; DROP TABLE sandboxes; --",
    "${jndi:ldap://127.0.0.1:1/x}",
    "(touch @M)",
    "=cmd|'touch @M'!A0",
];

/// What git reads as something else than a branch, and texts that are no text.
const ODD: &[&str] = &[
    "",
    " ",
    " x",
    "x ",
    "x y",
    "HEAD",
    "@",
    "@{-1}",
    "@{u}",
    "refs/heads/main",
    "main~1",
    "main^{commit}",
    "main:file",
    ":/x",
    "a..b",
    "a...b",
    ".lock",
    "x.lock",
    "x.",
    "x/",
    "a//b",
    "-x",
    "^main",
    "main@{1}",
    "+main",
    "+refs/*:refs/*",
    ":refs/heads/main",
    "main:refs/heads/evil",
    "null",
    "true",
    "-1",
    "0",
    "1e999",
    "NaN",
    "[]",
    "{}",
    "__proto__",
    "constructor",
    "x\u{0}y",
    "\u{0}",
    "x\ny",
    "x\r\nSet-Cookie: a=b",
    "x\ty",
    "\u{7f}",
    "\u{1b}[2J",
    "\u{9b}2J",
    "\u{202e}nimda",
    "\u{200b}",
    "\u{feff}x",
    "\u{ff45}redar",
    "e\u{301}redar",
    "\u{2024}\u{2024}/x",
    "\u{ff0e}\u{ff0e}\u{ff0f}x",
    "\u{ff0d}\u{ff0d}upload-pack",
    "\u{2028}",
    "\u{10ffff}",
    "\u{212a}",
    "\u{130}",
    "\u{fdfa}",
    "\u{1f4a9}",
    "pay\u{0}",
    "eredar\n",
    "EREDAR",
    "pay/../x",
];

/// What an attacker writes where a name belongs: more than 200 texts, none of them twice.
pub fn names(trap: &Trap) -> Vec<String> {
    let lists = [OPTIONS, PATHS, COMMANDS, ODD];
    let plain = lists.into_iter().flatten().map(|text| (*text).to_owned());
    // Behind something that is a name.
    let behind = COMMANDS.iter().flat_map(|command| ["main", "feature/x"].map(|name| format!("{name}{command}")));
    let long = [
        "a".repeat(64),
        "a".repeat(101),
        "a".repeat(245),
        "a".repeat(4096),
        "x/".repeat(120),
        "../".repeat(80),
        "é".repeat(200),
        "$(".repeat(100),
        "[".repeat(200),
    ];
    let (marker, outside) = (trap.marker(), trap.outside());
    let filled = plain
        .chain(behind)
        .chain(long)
        .map(|text| text.replace("@M", &marker.display().to_string()).replace("@O", &outside.display().to_string()));
    let mut seen = std::collections::BTreeSet::new();
    filled.filter(|name| seen.insert(name.clone())).collect()
}

/// An entry of a commit as git keeps it, whatever git would say to it: mode, path and content, which of a link is where
/// it leads and of a submodule a commit.
#[derive(Debug, Clone)]
pub struct Entry(pub &'static str, pub String, pub String);

/// An ordinary file.
pub const FILE: &str = "100644";
/// A program.
pub const PROGRAM: &str = "100755";
/// A symbolic link.
pub const LINK: &str = "120000";
/// A submodule.
pub const SUBMODULE: &str = "160000";

/// Commits exactly these entries onto a branch of a bare repository, which no client would let pass.
///
/// # Errors
/// What git says.
pub fn commit(repo: &Path, branch: &str, entries: &[Entry]) -> Result<(), Failed> {
    let entries: Vec<_> =
        entries.iter().map(|Entry(mode, path, content)| (*mode, path.as_str(), content.as_str())).collect();
    let tree = write_tree(repo, &entries)?;
    let commit = git(repo, &["commit-tree", "-m", "hostile", &tree], "")?;
    git(repo, &["update-ref", &format!("refs/heads/{branch}"), &commit], "").map(drop)
}

fn write_tree(repo: &Path, entries: &[(&str, &str, &str)]) -> Result<String, Failed> {
    let mut folders: BTreeMap<&str, Vec<(&str, &str, &str)>> = BTreeMap::new();
    let mut lines = Vec::new();
    for (mode, path, content) in entries {
        match path.split_once('/') {
            Some((folder, rest)) => folders.entry(folder).or_default().push((mode, rest, content)),
            None if *mode == SUBMODULE => lines.push(format!("{mode} commit {content}\t{path}")),
            None => {
                let blob = git(repo, &["hash-object", "-w", "--stdin"], content)?;
                lines.push(format!("{mode} blob {blob}\t{path}"));
            }
        }
    }
    for (folder, entries) in folders {
        lines.push(format!("040000 tree {}\t{folder}", write_tree(repo, &entries)?));
    }
    git(repo, &["mktree", "--missing"], &(lines.join("\n") + "\n"))
}

fn git(repo: &Path, arguments: &[&str], input: &str) -> Result<String, Failed> {
    let identity = ["NAME", "EMAIL"]
        .into_iter()
        .flat_map(|what| ["AUTHOR", "COMMITTER"].map(|who| (format!("GIT_{who}_{what}"), "sdp@example.invalid")));
    let mut child = Command::new("git")
        .arg("--git-dir")
        .arg(repo)
        .args(arguments)
        .envs(identity)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().ok_or_else(|| Failed("git takes no input".into()))?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        return Err(Failed(format!("git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr))));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_enough_names_and_a_trap_tells_what_was_done() {
        let trap = Trap::new().unwrap();
        assert!(names(&trap).len() >= 200, "{}", names(&trap).len());
        assert_eq!(trap.sprung().unwrap(), [""; 0]);
        fs::write(trap.outside().join("secret"), "x").unwrap();
        fs::write(trap.outside().join("new"), "x").unwrap();
        fs::write(trap.marker(), "").unwrap();
        let sprung = trap.sprung().unwrap();
        for what in ["secret", "new", "executed"] {
            assert!(sprung.iter().any(|it| it.contains(what)), "{sprung:?}");
        }
    }
}
