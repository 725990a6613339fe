//! An HTTP proxy on loopback that leads every tunnel to one address and records the traffic.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

struct Shared {
    leads_to: Mutex<Result<SocketAddr, u16>>,
    heads: Mutex<Vec<String>>,
    bytes: Mutex<Vec<u8>>,
    closed: AtomicBool,
}

/// The proxy, stopped on drop.
pub struct Proxy {
    /// `HOST:PORT`.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Leads every tunnel to an address, whatever host was requested, or answers with a status.
    pub fn new(leads_to: Result<SocketAddr, u16>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            leads_to: Mutex::new(leads_to),
            heads: Mutex::default(),
            bytes: Mutex::default(),
            closed: AtomicBool::new(false),
        });
        let accept = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if accept.closed.load(Ordering::SeqCst) {
                    return;
                }
                let shared = accept.clone();
                std::thread::spawn(move || shared.serve(stream));
            }
        });
        Self { address, shared }
    }

    /// Leads there from now on.
    pub fn change(&self, leads_to: Result<SocketAddr, u16>) {
        *lock(&self.shared.leads_to) = leads_to;
    }

    /// The requests so far: request line and headers.
    pub fn heads(&self) -> Vec<String> {
        lock(&self.shared.heads).clone()
    }

    /// Every byte it has received so far, including inside tunnels.
    pub fn bytes(&self) -> Vec<u8> {
        lock(&self.shared.bytes).clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
    }
}

impl Shared {
    /// Serves a client until it closes or fails.
    fn serve(&self, mut client: TcpStream) -> Option<()> {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            client.read_exact(&mut byte).ok()?;
            head.push(byte[0]);
            lock(&self.bytes).push(byte[0]);
        }
        lock(&self.heads).push(String::from_utf8_lossy(&head).trim_end().to_owned());
        let leads_to = *lock(&self.leads_to);
        let address = match leads_to {
            Ok(address) if head.starts_with(b"CONNECT ") => address,
            refused => {
                let status = refused.err().unwrap_or(405);
                return client.write_all(format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n").as_bytes()).ok();
            }
        };
        let mut server = TcpStream::connect(address).ok()?;
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").ok()?;
        let (mut back, mut from) = (client.try_clone().ok()?, server.try_clone().ok()?);
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut back);
            let _ = back.shutdown(Shutdown::Both);
        });
        let mut buffer = [0; 8192];
        loop {
            let n = client.read(&mut buffer).unwrap_or(0);
            if n == 0 {
                return server.shutdown(Shutdown::Both).ok();
            }
            lock(&self.bytes).extend(&buffer[..n]);
            server.write_all(&buffer[..n]).ok()?;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
