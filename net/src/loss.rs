//! What the system knows of a TCP connection's losses.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Where `tcp_info` (linux/tcp.h) has the segments that were sent again, and all that were sent; and where that ends.
const AGAIN: usize = 100;
const ALL: usize = 136;
const END: usize = 140;

/// Tells a connection's losses, for as long as it lives itself.
#[derive(Debug)]
pub struct LossMeter(OwnedFd);

impl LossMeter {
    /// Of this socket.
    ///
    /// # Errors
    /// The process has too many open files.
    pub fn new(socket: &impl AsFd) -> std::io::Result<Self> {
        socket.as_fd().try_clone_to_owned().map(Self)
    }

    /// The share of segments sent that were sent again, 0 to 1; none where the system does not tell.
    pub fn share(&self) -> Option<f64> {
        let mut info = [0u8; 256];
        let mut length = info.len() as libc::socklen_t;
        // SAFETY: the system writes at most `length` bytes, which are there.
        let failed = unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if failed != 0 || (length as usize) < END {
            return None;
        }
        let at = |at: usize| info[at..].first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes));
        let (again, all) = (at(AGAIN), at(ALL));
        (all > 0).then(|| f64::from(again) / f64::from(all))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[test]
    fn a_connection_that_loses_nothing_says_so() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        near.write_all(&[7; 1000]).unwrap();
        far.read_exact(&mut [0; 1000]).unwrap();
        assert_eq!(LossMeter::new(&near).unwrap().share(), Some(0.0));
        assert_eq!(LossMeter::new(&std::fs::File::open("/dev/null").unwrap()).unwrap().share(), None);
    }
}
