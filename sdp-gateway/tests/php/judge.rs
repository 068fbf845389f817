//! The real PHP as judge of configuration files: does it accept them, and what do they set?

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// What a file sets: where (`return/…`, `var/…`, `const/…`, keys in hex) to the value in hex.
pub(crate) type Values = BTreeMap<String, String>;

/// PHP's answer for each file, in order: none when PHP refuses it. One PHP process for all.
pub(crate) fn evaluate(files: &[Vec<u8>]) -> Vec<Option<Values>> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for (at, bytes) in files.iter().enumerate() {
        fs::write(dir.path().join(format!("{at:05}.php")), bytes).expect("a file to judge");
    }
    let judge = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/php/judge.php");
    let status = Command::new("php")
        .args(["-n", "-f"])
        .args([&judge, dir.path()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .expect("`php` (Debian package php-cli) judges these tests");
    assert!(status.success(), "the judge itself failed: {status}");
    let verdict = fs::read(dir.path().join("verdict.json")).expect("the judge's verdict");
    let mut verdicts: BTreeMap<String, Option<Values>> =
        serde_json::from_slice(&verdict).expect("the judge's verdict as JSON");
    (0..files.len()).map(|at| verdicts.remove(&format!("{at:05}")).expect("a verdict for each file")).collect()
}

/// What one file sets; fails when PHP refuses it.
pub(crate) fn values(bytes: &[u8]) -> Values {
    evaluate(&[bytes.to_vec()]).remove(0).unwrap_or_else(|| panic!("PHP refuses:\n{}", String::from_utf8_lossy(bytes)))
}

/// Whether `php -l` accepts the file.
pub(crate) fn lints(bytes: &[u8]) -> bool {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("judged.php");
    fs::write(&file, bytes).expect("a file to judge");
    Command::new("php")
        .args(["-n", "-l"])
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("`php` (Debian package php-cli) judges these tests")
        .success()
}

/// Text as the judge writes it.
pub(crate) fn hex(text: impl AsRef<[u8]>) -> String {
    text.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The path up to the key or constant that sets the URL of `service`, if the path leads through one.
pub(crate) fn set_at(path: &str, service: &str) -> Option<String> {
    let key = format!("{service}_url");
    let (exact, upper) = (hex(&key), hex(key.to_uppercase()));
    let parts: Vec<&str> = path.split('/').collect();
    let at = parts.iter().position(|part| *part == exact || (parts[0] == "const" && *part == upper))?;
    Some(parts[..=at].join("/"))
}
