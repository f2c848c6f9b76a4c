//! One Kafka record as the producer sends it, and what is known about it.

use super::flaw::Flaw;

/// The header in which newer serializers of Confluent send the schema's GUID.
pub const SCHEMA_GUID_HEADER: &str = "__value_schema_id";

/// A GUID that no registry gives out.
pub(super) const GUID_OF_NOBODY: [u8; 16] = [0xDE; 16];

/// A record under construction; its buffers are used again and again.
#[derive(Debug, Default, Clone)]
pub struct Message {
    /// The sensor id.
    pub key: Vec<u8>,
    /// Whether the record goes out with its key.
    pub has_key: bool,
    /// Framing and body.
    pub value: Vec<u8>,
    /// Whether the record goes out with its value; a tombstone has none.
    pub has_value: bool,
    /// Sent in a header instead of an id in the framing.
    pub schema_guid: Option<[u8; 16]>,
    /// The Kafka timestamp: when the record was due.
    pub timestamp_ms: i64,
}

/// The schema ids that the fleet's records name.
#[derive(Debug, Clone, Copy)]
pub struct SchemaIds {
    /// The sensor reading.
    pub reading: u32,
    /// The GUID of the same schema.
    pub reading_guid: [u8; 16],
    /// A JSON schema.
    pub not_avro: u32,
    /// Avro, but not a sensor reading.
    pub incompatible: u32,
    /// Never registered.
    pub unknown: u32,
}

/// What a message is, for the books.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nature {
    /// Valid, in time.
    OnTime,
    /// Valid, and late within the allowed lateness of its window.
    Late,
    /// Valid, and so late that its window has surely been closed.
    VeryLate,
    /// A valid one once more, byte by byte: its producer has not heard that it arrived.
    Repeated,
    /// Invalid.
    Flawed(Flaw),
}

/// A message's entry in the books: what it is, and which series it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// What it is.
    pub nature: Nature,
    /// Index of the series.
    pub series: u32,
    /// Whether it is written by the second version of the schema.
    pub is_evolved: bool,
}

/// Set in a packed number beside the nature.
const EVOLVED: usize = 1 << 16;

/// Natures of valid messages; the flaws are numbered behind them.
const VALID_NATURES: [Nature; 4] = [Nature::OnTime, Nature::Late, Nature::VeryLate, Nature::Repeated];

impl Ticket {
    /// As a number, to travel with the message through the client library without an allocation.
    pub fn pack(self) -> usize {
        let nature = match self.nature {
            Nature::OnTime => 0,
            Nature::Late => 1,
            Nature::VeryLate => 2,
            Nature::Repeated => 3,
            Nature::Flawed(flaw) => VALID_NATURES.len() + flaw as usize,
        };
        let evolved = if self.is_evolved { EVOLVED } else { 0 };
        (nature | evolved) << 32 | self.series as usize
    }

    /// Back from the number; `None` for one that [`Self::pack`] never gave.
    pub fn unpack(packed: usize) -> Option<Self> {
        let (number, is_evolved) = (packed >> 32 & !EVOLVED, packed >> 32 & EVOLVED != 0);
        let flaw = || Flaw::ALL.get(number - VALID_NATURES.len()).map(|flaw| Nature::Flawed(*flaw));
        let nature = VALID_NATURES.get(number).copied().or_else(flaw)?;
        Some(Self { nature, series: packed as u32, is_evolved })
    }
}

impl Message {
    /// Begins a new message of that sensor.
    pub(super) fn start(&mut self, sensor_id: &str) {
        self.key.clear();
        self.key.extend_from_slice(sensor_id.as_bytes());
        self.has_key = true;
        self.value.clear();
        self.has_value = true;
        self.schema_guid = None;
    }

    /// Begins the value with Confluent's framing: magic 0 and the id, big endian.
    pub(super) fn frame(&mut self, schema_id: u32) {
        self.value.push(0);
        self.value.extend_from_slice(&schema_id.to_be_bytes());
    }

    /// Content of the header that carries the GUID: magic 1 and the sixteen bytes.
    pub fn guid_header(&self) -> Option<[u8; 17]> {
        let guid = self.schema_guid?;
        let mut content = [1; 17];
        content[1..].copy_from_slice(&guid);
        Some(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_survive_packing() {
        let flawed = Flaw::ALL.into_iter().map(Nature::Flawed);
        for nature in VALID_NATURES.into_iter().chain(flawed) {
            for is_evolved in [false, true] {
                let ticket = Ticket { nature, series: u32::MAX - 3, is_evolved };
                assert_eq!(Ticket::unpack(ticket.pack()), Some(ticket));
            }
        }
        assert_eq!(Ticket::unpack(usize::MAX), None);
    }

    #[test]
    fn flaws_are_listed_in_their_own_order() {
        for (index, flaw) in Flaw::ALL.into_iter().enumerate() {
            assert_eq!(flaw as usize, index);
        }
    }
}
