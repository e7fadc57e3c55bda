//! A path between a client and a server that loses, repeats and delays datagrams at random.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// The faults, each with the share of datagrams that it affects.
#[derive(Clone, Copy, Default)]
pub struct Faults {
    pub lost: f64,
    pub repeated: f64,
    /// The share of datagrams that are delayed, so that later ones overtake them.
    pub delayed: f64,
    /// How long they are delayed.
    pub delay: Duration,
}

/// The path, with the same faults in both directions.
pub struct Relay {
    port: u16,
    cut: Arc<AtomicBool>,
    lost: Arc<AtomicUsize>,
    tasks: [JoinHandle<()>; 2],
}

struct Way {
    from: Arc<UdpSocket>,
    to: Arc<UdpSocket>,
    faults: Faults,
    cut: Arc<AtomicBool>,
    lost: Arc<AtomicUsize>,
}

impl Relay {
    /// Opens a path to the server on this port of the loopback interface.
    pub async fn start(server: u16, faults: Faults) -> Relay {
        let outside = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let inside = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        inside.connect(("127.0.0.1", server)).await.unwrap();
        let port = outside.local_addr().unwrap().port();
        let (cut, lost) = (Arc::default(), Arc::default());
        let way = |from: &Arc<UdpSocket>, to: &Arc<UdpSocket>| Way {
            from: from.clone(),
            to: to.clone(),
            faults,
            cut: Arc::clone(&cut),
            lost: Arc::clone(&lost),
        };
        let (there, back) = (way(&outside, &inside), way(&inside, &outside));
        let client = Arc::new(parking_lot::Mutex::new(None));
        let tasks = [
            tokio::spawn(there.run(client.clone(), true, 1)),
            tokio::spawn(back.run(client, false, 2)),
        ];
        Relay {
            port,
            cut,
            lost,
            tasks,
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Blocks the path, or opens it again.
    pub fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::SeqCst);
    }

    /// The number of datagrams that were lost.
    pub fn lost(&self) -> usize {
        self.lost.load(Ordering::SeqCst)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

type Client = Arc<parking_lot::Mutex<Option<SocketAddr>>>;

impl Way {
    async fn run(self, client: Client, from_client: bool, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut buffer = vec![0; 1 << 16];
        loop {
            let Ok((len, sender)) = self.from.recv_from(&mut buffer).await else {
                continue;
            };
            if from_client {
                *client.lock() = Some(sender);
            }
            let Faults {
                lost,
                repeated,
                delayed,
                delay,
            } = self.faults;
            if self.cut.load(Ordering::SeqCst) || random.random_bool(lost) {
                self.lost.fetch_add(1, Ordering::SeqCst);
                continue;
            }
            let times = if random.random_bool(repeated) { 2 } else { 1 };
            let delay = random.random_bool(delayed).then_some(delay);
            let receiver = if from_client { None } else { *client.lock() };
            for _ in 0..times {
                let (to, datagram) = (self.to.clone(), buffer[..len].to_vec());
                let send = async move {
                    let _ = match receiver {
                        Some(receiver) => to.send_to(&datagram, receiver).await,
                        None => to.send(&datagram).await,
                    };
                };
                match delay {
                    Some(delay) => {
                        tokio::spawn(async move {
                            tokio::time::sleep(delay).await;
                            send.await;
                        });
                    }
                    None => send.await,
                }
            }
        }
    }
}
