//! A connection to one broker: requests out, responses in.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::cursor::{Cursor, Malformed};
use super::protocol::{API_VERSIONS, Api, FETCH, Frame, OFFSET_FOR_LEADER_EPOCH, read_missing_api};
use super::settings::FetchSettings;

/// How often a read looks whether it is still wanted.
const TICK: Duration = Duration::from_millis(100);
/// A buffer grows by so much at a time, as bytes arrive: the size that a broker announces is not believed in advance.
const GROWTH: usize = 1 << 20;

/// Why a connection is given up.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("it has no address")]
    NoAddress,
    #[error("it has not answered for {0:?}")]
    Silent(Duration),
    #[error("its answer has {size} bytes, which is more than {limit} (receive.message.max.bytes)")]
    TooLarge { size: i64, limit: usize },
    #[error("it answers another request than was sent")]
    OutOfOrder,
    #[error("its answer cannot be read: {0}")]
    Malformed(#[from] Malformed),
    #[error("it does not speak {} version {}; set kafka.fetcher = \"librdkafka\"", .0.name, .0.version)]
    MissingApi(Api),
    #[error("it refuses the request: error {0}")]
    Refused(i16),
    /// Nobody wants the answer any more.
    #[error("stopped")]
    Stopped,
}

/// A connection on which requests are answered in the order in which they are sent.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    client_id: String,
    frame: Frame,
    /// Of the last request, and of the last response.
    sent: i32,
    received: i32,
    request_timeout: Duration,
    /// How long the broker keeps silent because of a quota.
    throttled: Duration,
    frame_limit: usize,
}

impl Connection {
    /// Connects, and asks whether the broker speaks what we need. `stopping` ends the wait for an answer.
    pub(super) fn open(
        host: &str,
        port: u16,
        settings: &FetchSettings,
        stopping: &dyn Fn() -> bool,
    ) -> Result<Self, ConnectionError> {
        let mut failure = ConnectionError::NoAddress;
        for address in (host, port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, settings.connect_timeout) {
                Ok(stream) => return Self::start(stream, settings, stopping),
                Err(error) => failure = error.into(),
            }
            if stopping() {
                return Err(ConnectionError::Stopped);
            }
        }
        Err(failure)
    }

    fn start(
        stream: TcpStream,
        settings: &FetchSettings,
        stopping: &dyn Fn() -> bool,
    ) -> Result<Self, ConnectionError> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TICK))?;
        stream.set_write_timeout(Some(settings.request_timeout))?;
        let mut connection = Self {
            stream,
            client_id: settings.client_id.clone(),
            frame: Frame::default(),
            sent: 0,
            received: 0,
            request_timeout: settings.handshake_timeout,
            throttled: Duration::ZERO,
            frame_limit: settings.frame_limit,
        };
        let mut buffer = Vec::new();
        connection.send(API_VERSIONS, |_| {})?;
        let versions = connection.receive(&mut buffer, Duration::ZERO, stopping)?;
        if let Some(missing) = read_missing_api(versions, &[FETCH, OFFSET_FOR_LEADER_EPOCH])? {
            return Err(ConnectionError::MissingApi(missing));
        }
        connection.request_timeout = settings.request_timeout;
        Ok(connection)
    }

    /// Sends a request whose fields `write` appends.
    pub(super) fn send(&mut self, api: Api, write: impl FnOnce(&mut Frame)) -> Result<(), ConnectionError> {
        self.sent = self.sent.wrapping_add(1);
        self.frame.begin(api, self.sent, &self.client_id);
        write(&mut self.frame);
        self.stream.write_all(self.frame.finish())?;
        Ok(())
    }

    /// Notes for how long the broker will keep silent.
    pub(super) fn throttle(&mut self, throttle_ms: i32) {
        self.throttled = Duration::from_millis(throttle_ms.max(0) as u64);
    }

    /// The next response, without its header. `wait`: how long the broker may take its time beyond the request timeout;
    /// every byte that arrives starts the clock again.
    pub(super) fn receive<'b>(
        &mut self,
        buffer: &'b mut Vec<u8>,
        wait: Duration,
        stopping: &dyn Fn() -> bool,
    ) -> Result<&'b [u8], ConnectionError> {
        let patience = self.request_timeout + self.throttled + wait;
        self.fill(buffer, 4, patience, stopping)?;
        let size = Cursor::new(&buffer[..4]).i32()?;
        let size = match usize::try_from(size) {
            Ok(size) if size <= self.frame_limit => size,
            _ => return Err(ConnectionError::TooLarge { size: size.into(), limit: self.frame_limit }),
        };
        self.fill(buffer, size, patience, stopping)?;
        let mut response = Cursor::new(&buffer[..size]);
        self.received = self.received.wrapping_add(1);
        if response.i32()? != self.received {
            return Err(ConnectionError::OutOfOrder);
        }
        Ok(&buffer[4..size])
    }

    /// Reads `size` bytes to the beginning of `buffer`, which only ever grows.
    fn fill(
        &mut self,
        buffer: &mut Vec<u8>,
        size: usize,
        patience: Duration,
        stopping: &dyn Fn() -> bool,
    ) -> Result<(), ConnectionError> {
        let mut filled = 0;
        let mut last_byte = Instant::now();
        while filled < size {
            let end = size.min(buffer.len().max(filled + GROWTH));
            if buffer.len() < end {
                buffer.resize(end, 0);
            }
            match self.stream.read(&mut buffer[filled..end]) {
                Ok(0) => return Err(std::io::Error::from(ErrorKind::UnexpectedEof).into()),
                Ok(read) => {
                    filled += read;
                    last_byte = Instant::now();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if last_byte.elapsed() >= patience {
                        return Err(ConnectionError::Silent(patience));
                    }
                }
                Err(error) => return Err(error.into()),
            }
            if stopping() {
                return Err(ConnectionError::Stopped);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::super::super::IngestLimits;
    use super::super::super::properties::tests::kafka;
    use super::*;

    /// Connects to a broker that takes one request and then sends what `answer` makes of its correlation id.
    fn connect(answer: impl FnOnce(&[u8]) -> Option<Vec<u8>> + Send + 'static) -> Result<Connection, ConnectionError> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let broker = thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let mut size = [0; 4];
            stream.read_exact(&mut size).unwrap();
            let mut request = vec![0; u32::from_be_bytes(size) as usize];
            stream.read_exact(&mut request).unwrap();
            assert_eq!(request[..4], [0, 18, 0, 0], "ApiVersions, version 0");
            if let Some(answer) = answer(&request[4..8]) {
                stream.write_all(&answer).unwrap();
            } else {
                // Half-open: says nothing, until the other side has gone.
                let _ = stream.read(&mut size);
            }
        });
        let properties = [("socket.timeout.ms", "300"), ("receive.message.max.bytes", "1000")];
        let settings = FetchSettings::new(&kafka(&properties), &IngestLimits::default(), 1 << 30).unwrap();
        let outcome = Connection::open("127.0.0.1", port, &settings, &|| false);
        if outcome.is_ok() {
            return outcome;
        }
        broker.join().unwrap();
        outcome
    }

    /// A response to ApiVersions: key, oldest and newest version of each.
    fn versions(correlation: &[u8], versions: &[[i16; 3]]) -> Vec<u8> {
        let mut body = correlation.to_vec();
        body.extend(0_i16.to_be_bytes());
        body.extend((versions.len() as i32).to_be_bytes());
        body.extend(versions.iter().flatten().flat_map(|number| number.to_be_bytes()));
        [&(body.len() as i32).to_be_bytes()[..], &body].concat()
    }

    fn error(outcome: Result<Connection, ConnectionError>) -> String {
        outcome.unwrap_err().to_string()
    }

    #[test]
    fn a_broker_must_speak_what_is_needed() {
        connect(|id| Some(versions(id, &[[0, 0, 9], [1, 4, 18], [23, 2, 4]]))).unwrap();
        let old = error(connect(|id| Some(versions(id, &[[1, 0, 10], [23, 0, 4]]))));
        assert!(old.contains("Fetch version 11") && old.contains("librdkafka"), "{old}");
        let other = error(connect(|id| Some(versions(id, &[[1, 4, 18]]))));
        assert!(other.contains("OffsetForLeaderEpoch"), "{other}");
    }

    #[test]
    fn answers_that_cannot_be_meant_are_refused() {
        assert!(error(connect(|_| Some(versions(&[9; 4], &[[1, 4, 18]])))).contains("another request"));
        assert!(error(connect(|_| Some(vec![0x7f, 0xff, 0xff, 0xff]))).contains("receive.message.max.bytes"));
        assert!(error(connect(|_| Some(vec![0xff; 8]))).contains("receive.message.max.bytes"));
        assert!(error(connect(|_| Some(vec![0, 0, 0, 2, 1, 1]))).contains("cut short"));
        // Closed in the middle.
        assert!(matches!(connect(|_| Some(vec![0, 0, 0, 9, 1, 1])), Err(ConnectionError::Io(_))));
    }

    #[test]
    fn a_broker_that_says_nothing_is_given_up() {
        assert!(matches!(connect(|_| None), Err(ConnectionError::Silent(_))));
    }
}
