//! Traffic between two hosts: a checked TCP transfer, and loads for the benchmark.
//!
//! A load has threads that send and receive, similar to iperf3: TCP writes of 128 KiB, UDP one
//! datagram per system call. They run until they are stopped. To measure, read the counters at the
//! beginning and at the end of a time window.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::{Host, until};

/// A connection that makes no progress for this time has failed.
const STALLED: Duration = Duration::from_secs(30);
const BLOCK: usize = 128 * 1024;
/// The block of a checked transfer. It is small, so that a single write of a paced transfer does not
/// overrun a peer's socket buffer (by default 212 KB, about 90 datagrams).
const CHECKED_BLOCK: usize = 16 * 1024;

/// A transfer that arrived completely.
#[derive(Debug, Clone, Copy)]
pub struct Transfer {
    /// Bytes.
    pub bytes: u64,
    /// The time from connecting to the arrival of the last byte.
    pub time: Duration,
    /// Longest pause between two reads of the receiver.
    pub longest_pause: Duration,
}

impl Transfer {
    /// Bits per second.
    pub fn rate(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.time.as_secs_f64()
    }
}

/// Sends `bytes` of a pattern over TCP from one host to an address of another, and compares checksums.
/// Before each block of 16 KiB the sender calls `progress(bytes so far)`, which may slow it down.
pub fn transfer(
    from: &Host,
    to: (&Host, IpAddr),
    bytes: u64,
    mut progress: impl FnMut(u64) + Send,
) -> io::Result<Transfer> {
    let (to, address) = to;
    let listener = to.run(|| TcpListener::bind((address, 0)))?;
    let target = listener.local_addr()?;
    let start = Instant::now();
    let receiver = to.thread(move || -> io::Result<_> {
        let mut stream = accept(&listener)?;
        let (mut sum, mut total, mut pause) = (Checksum::default(), 0, Duration::ZERO);
        let mut block = vec![0; CHECKED_BLOCK];
        let mut last = Instant::now();
        loop {
            let len = stream.read(&mut block)?;
            pause = pause.max(last.elapsed());
            last = Instant::now();
            if len == 0 {
                stream.write_all(&sum.value().to_le_bytes())?;
                return Ok((total, pause));
            }
            total += len as u64;
            sum.add(&block[..len]);
        }
    });
    let sent = from.run(|| -> io::Result<()> {
        let mut stream = connect(target)?;
        let (mut sum, mut done) = (Checksum::default(), 0);
        let mut block = vec![0; CHECKED_BLOCK];
        while done < bytes {
            progress(done);
            let len = (bytes - done).min(CHECKED_BLOCK as u64) as usize;
            pattern(done, &mut block[..len]);
            sum.add(&block[..len]);
            stream.write_all(&block[..len])?;
            done += len as u64;
        }
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut theirs = [0; 8];
        stream.read_exact(&mut theirs)?;
        if u64::from_le_bytes(theirs) != sum.value() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "checksums differ",
            ));
        }
        Ok(())
    });
    let received = join(receiver);
    let context = |error: io::Error| {
        let text = format!(
            "TCP from {} to {} at {target}: {error}",
            from.name(),
            to.name()
        );
        io::Error::new(error.kind(), text)
    };
    sent.map_err(context)?;
    let (total, longest_pause) = received.map_err(context)?;
    if total != bytes {
        return Err(context(io::Error::other(format!(
            "{total} of {bytes} bytes arrived"
        ))));
    }
    Ok(Transfer {
        bytes,
        time: start.elapsed(),
        longest_pause,
    })
}

fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&target, STALLED)?;
    stream.set_read_timeout(Some(STALLED))?;
    stream.set_write_timeout(Some(STALLED))?;
    Ok(stream)
}

/// Accepts one connection within the time limit.
fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    listener.set_nonblocking(true)?;
    let stream = until(STALLED, "a TCP connection", || match listener.accept() {
        Ok((stream, _)) => Ok(Some(stream)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    })?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(STALLED))?;
    Ok(stream)
}

fn join<T>(thread: JoinHandle<io::Result<T>>) -> io::Result<T> {
    thread
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("a traffic thread panicked")))
}

/// Bytes that do not repeat, computed from their offset in the stream (a multiple of 8).
pub(crate) fn pattern(offset: u64, block: &mut [u8]) {
    for (n, word) in block.chunks_mut(8).enumerate() {
        let mut x = (offset / 8 + n as u64)
            .wrapping_add(1)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x = (x ^ x >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
        word.copy_from_slice(&(x ^ x >> 29).to_le_bytes()[..word.len()]);
    }
}

/// FNV-1a over words of 8 bytes. It depends on the order of the bytes, and not on how the stream was
/// cut.
#[derive(Default)]
struct Checksum {
    hash: u64,
    partial: Vec<u8>,
}

impl Checksum {
    fn add(&mut self, mut bytes: &[u8]) {
        if !self.partial.is_empty() {
            let missing = (8 - self.partial.len()).min(bytes.len());
            self.partial.extend_from_slice(&bytes[..missing]);
            bytes = &bytes[missing..];
            if self.partial.len() < 8 {
                return;
            }
            let word: Vec<u8> = std::mem::take(&mut self.partial);
            self.words(&word);
        }
        let whole = bytes.len() & !7;
        self.words(&bytes[..whole]);
        self.partial.extend_from_slice(&bytes[whole..]);
    }

    fn words(&mut self, bytes: &[u8]) {
        for word in bytes.chunks_exact(8) {
            let word = u64::from_le_bytes(word.try_into().expect("8 bytes"));
            self.hash = (self.hash ^ word)
                .wrapping_mul(0x0000_0100_0000_01b3)
                .rotate_left(23);
        }
    }

    fn value(&self) -> u64 {
        let tail = self
            .partial
            .iter()
            .fold(0, |tail, byte| tail << 8 | u64::from(*byte));
        self.hash ^ tail
    }
}

/// Traffic that goes on until this is dropped or stopped by [`Load::stop`].
#[derive(Debug)]
pub struct Load {
    progress: Arc<Progress>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

/// The counters of a load, and whether its threads have to stop.
#[derive(Debug, Default)]
struct Progress {
    stop: AtomicBool,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Load {
    /// TCP streams from one host to an address of another. It counts bytes.
    pub fn tcp(from: &Host, to: (&Host, IpAddr), streams: usize) -> io::Result<Load> {
        let mut load = Load {
            progress: Arc::default(),
            threads: Vec::new(),
        };
        for _ in 0..streams {
            let listener = to.0.run(|| TcpListener::bind((to.1, 0)))?;
            let target = listener.local_addr()?;
            let progress = load.progress.clone();
            load.threads.push(to.0.thread(move || {
                let mut stream = accept(&listener)?;
                let mut block = vec![0; BLOCK];
                loop {
                    match stream.read(&mut block)? {
                        0 => return Ok(()),
                        len => progress.received.fetch_add(len as u64, Relaxed),
                    };
                }
            }));
            let progress = load.progress.clone();
            load.threads.push(from.thread(move || {
                let mut stream = connect(target)?;
                let block = vec![0x5a; BLOCK];
                while !progress.stop.load(Relaxed) {
                    let len = stream.write(&block)?;
                    progress.sent.fetch_add(len as u64, Relaxed);
                }
                Ok(())
            }));
        }
        Ok(load)
    }

    /// Datagrams of `size` bytes, as fast as they can be sent. It counts datagrams.
    pub fn udp(from: &Host, to: (&Host, IpAddr), size: usize) -> io::Result<Load> {
        let socket = to.0.run(|| UdpSocket::bind((to.1, 0)))?;
        let target = socket.local_addr()?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let mut load = Load {
            progress: Arc::default(),
            threads: Vec::new(),
        };
        let progress = load.progress.clone();
        load.threads.push(to.0.thread(move || {
            let mut datagram = vec![0; 65536];
            while !progress.stop.load(Relaxed) {
                match socket.recv(&mut datagram) {
                    Ok(len) if len == size => {
                        progress.received.fetch_add(1, Relaxed);
                    }
                    Ok(len) => {
                        let text = format!("a datagram of {size} bytes arrived with {len}");
                        return Err(io::Error::other(text));
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        }));
        let progress = load.progress.clone();
        let any: SocketAddr = if to.1.is_ipv4() {
            ([0; 4], 0).into()
        } else {
            ([0u16; 8], 0).into()
        };
        load.threads.push(from.thread(move || {
            let socket = UdpSocket::bind(any)?;
            socket.connect(target)?;
            let datagram = vec![0x5a; size];
            while !progress.stop.load(Relaxed) {
                match socket.send(&datagram) {
                    Ok(_) => progress.sent.fetch_add(1, Relaxed),
                    Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => 0,
                    Err(error) => return Err(error),
                };
            }
            Ok(())
        }));
        Ok(load)
    }

    /// Bytes (TCP) or datagrams (UDP) handed to the kernel so far, and received so far.
    pub fn counts(&self) -> (u64, u64) {
        (
            self.progress.sent.load(Relaxed),
            self.progress.received.load(Relaxed),
        )
    }

    /// Waits until the first bytes have arrived.
    pub fn flowing(&self) -> io::Result<()> {
        until(STALLED, "the first bytes of a load", || {
            let failed = self.threads.iter().any(JoinHandle::is_finished);
            Ok((failed || self.counts().1 > 0).then_some(()))
        })
    }

    /// Ends the load. Returns the error of a thread, if there was one.
    pub fn stop(mut self) -> io::Result<()> {
        self.progress.stop.store(true, Relaxed);
        self.threads
            .drain(..)
            .map(join)
            .fold(Ok(()), io::Result::and)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.progress.stop.store(true, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_depends_on_the_order_but_not_on_cuts() {
        let mut bytes = vec![0; 1003];
        pattern(0, &mut bytes);
        let sum = |cuts: &[&[u8]]| {
            let mut sum = Checksum::default();
            cuts.iter().for_each(|cut| sum.add(cut));
            sum.value()
        };
        let whole = sum(&[&bytes]);
        assert_eq!(
            whole,
            sum(&[&bytes[..3], &bytes[3..5], &bytes[5..900], &bytes[900..]])
        );
        assert_ne!(whole, sum(&[&bytes[8..16], &bytes[..8], &bytes[16..]]));
        assert_ne!(whole, sum(&[&bytes[..1002]]));
        bytes[500] ^= 1;
        assert_ne!(whole, sum(&[&bytes]));
    }
}
