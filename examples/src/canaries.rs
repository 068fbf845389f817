//! Secrets that are looked for everywhere once a story has been told: where one is found, it has leaked.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use memchr::memmem::Finder;

use crate::Failed;

/// Secrets by what each is.
#[derive(Debug, Default, Clone)]
pub struct Canaries {
    needles: Vec<(String, Finder<'static>)>,
}

impl Canaries {
    /// Looks for this secret too: whole, each half of it, and in base64 wherever it begins in a group.
    #[must_use]
    pub fn with(mut self, what: &str, secret: &str) -> Self {
        let (first, second) = secret.split_at(secret.len() / 2);
        for (form, text) in [("whole", secret), ("its first half", first), ("its second half", second)] {
            self.add(format!("{what}, {form}"), text.as_bytes());
        }
        for before in 0..3_usize {
            let bytes = [&vec![0; before][..], secret.as_bytes()].concat();
            let encoded = BASE64_STANDARD_NO_PAD.encode(&bytes);
            // What does not depend on what stands before and after.
            let core = &encoded[(before * 8).div_ceil(6)..bytes.len() * 8 / 6];
            self.add(format!("{what}, in base64"), core.as_bytes());
        }
        self
    }

    fn add(&mut self, what: String, needle: &[u8]) {
        self.needles.push((what, Finder::new(needle).into_owned()));
    }

    /// What of them is in some bytes.
    pub fn found_in(&self, bytes: &[u8]) -> BTreeSet<String> {
        let found = self.needles.iter().filter(|(_, needle)| needle.find(bytes).is_some());
        found.map(|(what, _)| what.clone()).collect()
    }

    /// What of them is in the files below a folder, a line each, and how many files there are. A file with one of these
    /// names is there to hold a secret.
    ///
    /// # Errors
    /// When something cannot be read.
    pub fn found_below(&self, folder: &Path, but: &[&str]) -> Result<(Vec<String>, usize), Failed> {
        let (mut found, mut files) = (Vec::new(), 0);
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder)? {
                let (path, kind) = entry.map_err(Failed::from).and_then(|it| Ok((it.path(), it.file_type()?)))?;
                if kind.is_dir() {
                    folders.push(path);
                } else if kind.is_file() && !but.iter().any(|name| path.file_name().is_some_and(|it| it == *name)) {
                    files += 1;
                    let hits = self.found_in(&fs::read(&path)?);
                    found.extend(hits.into_iter().map(|what| format!("{what}: {}", path.display())));
                }
            }
        }
        Ok((found, files))
    }
}

/// Looks at the command lines and the environments of all processes, until it is told to stop.
#[derive(Debug)]
pub struct ProcessWatch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(BTreeSet<String>, usize)>,
}

impl ProcessWatch {
    /// Starts to look.
    pub fn start(canaries: Canaries) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut found, mut looks) = (BTreeSet::new(), 0);
            // What a process was when it was last looked at: it is another one after it has executed another program.
            let mut known: HashMap<u32, Vec<u8>> = HashMap::new();
            while !stopped.load(Ordering::Relaxed) {
                let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
                let ids: Vec<u32> = processes.filter_map(|it| it.file_name().to_str()?.parse().ok()).collect();
                known.retain(|id, _| ids.contains(id));
                for id in ids {
                    let read = |file: &str| fs::read(format!("/proc/{id}/{file}")).unwrap_or_default();
                    let command = read("cmdline");
                    if command.is_empty() || known.get(&id) == Some(&command) {
                        continue;
                    }
                    looks += 1;
                    for (file, bytes) in [("environ", read("environ")), ("cmdline", command.clone())] {
                        let hits = canaries.found_in(&bytes);
                        let name = String::from_utf8_lossy(&read("comm")).trim().to_owned();
                        found.extend(hits.into_iter().map(|what| format!("{what}: {file} of {name}")));
                    }
                    known.insert(id, command);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            (found, looks)
        });
        Self { stop, thread }
    }

    /// What was found, and at how many processes it looked.
    ///
    /// # Errors
    /// When looking failed.
    pub fn stop(self) -> Result<(BTreeSet<String>, usize), Failed> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| Failed("the processes could not be looked at".into()))
    }
}

#[cfg(test)]
mod tests {
    use base64::prelude::BASE64_STANDARD;

    use super::*;

    const SECRET: &str = "4b1e7c3a9d602f8a4c1b7e55";

    #[test]
    fn a_secret_is_found_in_each_of_its_forms() {
        let canaries = Canaries::default().with("it", SECRET);
        for text in [SECRET.into(), format!("x{}", &SECRET[..12]), format!("{} y", &SECRET[12..])] {
            assert!(!canaries.found_in(text.as_bytes()).is_empty(), "{text}");
        }
        for before in ["", "a", "ab", "abc", "ada:"] {
            let text = BASE64_STANDARD.encode(format!("{before}{SECRET} and more"));
            assert_eq!(canaries.found_in(text.as_bytes()).len(), 1, "{text}");
        }
        assert!(canaries.found_in(b"4b1e7c3a").is_empty());
    }

    #[test]
    fn a_secret_is_found_in_files_and_in_processes() {
        let canaries = Canaries::default().with("it", SECRET);
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        for name in ["a/b/c", "a/token"] {
            fs::write(dir.path().join(name), format!("x{SECRET}")).unwrap();
        }
        let (found, files) = canaries.found_below(dir.path(), &["token"]).unwrap();
        assert!(files == 1 && found.len() == 3 && found.iter().all(|it| it.ends_with("a/b/c")), "{found:?}");

        let watch = ProcessWatch::start(canaries);
        let mut child = std::process::Command::new("sleep").arg("600").env("SECRET", SECRET).spawn().unwrap();
        let pid = child.id();
        // By then every process that was there is looked at.
        let look = || fs::read(format!("/proc/{pid}/cmdline")).unwrap().starts_with(b"sleep");
        while !look() {
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_millis(500));
        child.kill().unwrap();
        child.wait().unwrap();
        let (found, looks) = watch.stop().unwrap();
        assert!(looks > 0 && found.iter().any(|it| it.ends_with("environ of sleep")), "{found:?}");
    }
}
