//! Small files that are replaced as a whole: after a power cut there is the old one or the new one.

use super::error::OpenError;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

/// Makes creations and renames in a directory durable.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Writes `name` in `dir`, durably and in one step.
pub fn replace(dir: &Path, name: &str, content: &[u8]) -> Result<(), OpenError> {
    let write = || {
        let aside = dir.join(format!("{name}.tmp"));
        let mut file = File::create(&aside)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&aside, dir.join(name))?;
        sync_dir(dir)
    };
    write().map_err(OpenError::io(format!("write {}", dir.join(name).display())))
}

/// The text below its checksum line, for files that people read.
pub fn seal(body: &str) -> String {
    format!("{body}crc {:08x}\n", crc32fast::hash(body.as_bytes()))
}

/// Reads a sealed text; `None` when there is no such file.
pub fn read_sealed(path: &Path) -> Result<Option<String>, OpenError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(OpenError::io(format!("read {}", path.display()))(e)),
    };
    let bad = |why: &str| OpenError::BadFile { path: path.to_path_buf(), why: why.to_owned() };
    let text = String::from_utf8(bytes).map_err(|_| bad("it is not text"))?;
    let at = text.rfind("crc ").ok_or_else(|| bad("it has no checksum"))?;
    if seal(&text[..at]) != text {
        return Err(bad("its checksum does not match its content"));
    }
    Ok(Some(text[..at].to_owned()))
}
