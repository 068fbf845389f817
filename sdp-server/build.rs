//! Embeds the built dashboard, if it has been built: every file below `dashboard/dist`.

use std::{
    fmt::Write as _,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    path::{Path, PathBuf},
};

fn main() -> io::Result<()> {
    let dist = PathBuf::from(required("CARGO_MANIFEST_DIR")?).join("dashboard").join("dist");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=dashboard/dist");
    let mut files = Vec::new();
    find(&dist, &mut files)?;
    files.sort();
    let mut code = String::from("&[\n");
    for file in files.iter().filter(|file| file.extension().is_none_or(|extension| extension != "gz")) {
        let name = file.strip_prefix(&dist).map_err(io::Error::other)?.to_string_lossy().replace('\\', "/");
        let mut gz = file.clone().into_os_string();
        gz.push(".gz");
        let gz = Path::new(&gz);
        let gzipped = if gz.exists() { format!("Some(include_bytes!({gz:?}))") } else { "None".into() };
        let mut hasher = DefaultHasher::new();
        fs::read(file)?.hash(&mut hasher);
        let etag = format!("\"{:016x}\"", hasher.finish());
        let fields = format!("name: {name:?}, etag: {etag:?}, plain: include_bytes!({file:?}), gzipped: {gzipped}");
        writeln!(code, "Asset {{ {fields} }},").map_err(io::Error::other)?;
    }
    code.push(']');
    fs::write(Path::new(&required("OUT_DIR")?).join("dashboard.rs"), code)
}

fn required(variable: &str) -> io::Result<String> {
    std::env::var(variable).map_err(|error| io::Error::other(format!("{variable}: {error}")))
}

/// The files below a folder; those whose name begins with a dot are not of the dashboard.
fn find(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            find(&path, files)?;
        } else if !entry.file_name().to_string_lossy().starts_with('.') {
            files.push(path);
        }
    }
    Ok(())
}
