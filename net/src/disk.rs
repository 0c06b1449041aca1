//! Room on the file system that holds a folder.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes that an ordinary user may still write to the file system of `path`, which must exist.
///
/// # Errors
/// What the system says of a path that is not there or may not be looked at.
pub fn free_disk_bytes(path: &Path) -> io::Result<u64> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path ends in a nul byte, and statvfs is plain numbers that the call fills.
    let (status, room) = unsafe {
        let mut room = std::mem::zeroed::<libc::statvfs>();
        (libc::statvfs(path.as_ptr(), &raw mut room), room)
    };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(room.f_bavail.saturating_mul(room.f_frsize))
}
