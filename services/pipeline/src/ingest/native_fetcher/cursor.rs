//! Reading what a broker sends: big-endian integers, sized fields, and the zigzag varints of records.
//!
//! Nothing here trusts a length: every read is checked against what is there, and nothing is allocated.

/// What was read is not what the protocol promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub(super) struct Malformed {
    pub(super) what: &'static str,
    pub(super) at: usize,
}

/// A position in received bytes. It never lies behind their end.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Where the next read begins.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// What was not read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    pub(super) fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { what, at: self.at }
    }

    #[inline]
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        match self.rest().get(..length) {
            Some(taken) => {
                self.at += length;
                Ok(taken)
            }
            None => Err(self.malformed("cut short")),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    #[inline]
    pub(super) fn i8(&mut self) -> Result<i8, Malformed> {
        self.array().map(i8::from_be_bytes)
    }

    pub(super) fn i16(&mut self) -> Result<i16, Malformed> {
        self.array().map(i16::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_be_bytes)
    }

    /// A string with a length of 16 bits; null is as good as empty to us.
    pub(super) fn string(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.i16()?;
        self.take(usize::try_from(length).unwrap_or(0))
    }

    /// Bytes with a length of 32 bits; null is as good as empty to us.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.i32()?;
        self.take(usize::try_from(length).unwrap_or(0))
    }

    /// The number of elements of an array; a null array has none. More than there are bytes cannot be meant.
    pub(super) fn count(&mut self) -> Result<usize, Malformed> {
        let count = usize::try_from(self.i32()?).unwrap_or(0);
        if count > self.rest().len() {
            return Err(self.malformed("an array longer than what follows"));
        }
        Ok(count)
    }

    /// A zigzag number of up to 32 bits.
    #[inline]
    pub(super) fn varint(&mut self) -> Result<i32, Malformed> {
        let bits = self.varint_bits()?;
        let bits = u32::try_from(bits).map_err(|_| self.malformed("a number of more than 32 bits"))?;
        Ok((bits >> 1) as i32 ^ -((bits & 1) as i32))
    }

    /// A zigzag number of up to 64 bits.
    #[inline]
    pub(super) fn varlong(&mut self) -> Result<i64, Malformed> {
        let bits = self.varint_bits()?;
        Ok((bits >> 1) as i64 ^ -((bits & 1) as i64))
    }

    /// Nearly all have one or two bytes.
    #[inline]
    fn varint_bits(&mut self) -> Result<u64, Malformed> {
        match *self.rest() {
            [first, ..] if first < 0x80 => {
                self.at += 1;
                Ok(u64::from(first))
            }
            [first, second, ..] if second < 0x80 => {
                self.at += 2;
                Ok(u64::from(first & 0x7f) | u64::from(second) << 7)
            }
            _ => self.long_varint_bits(),
        }
    }

    fn long_varint_bits(&mut self) -> Result<u64, Malformed> {
        let mut bits = 0;
        for (index, byte) in self.rest().iter().take(10).enumerate() {
            bits |= u64::from(byte & 0x7f) << (7 * index);
            if *byte < 0x80 {
                self.at += index + 1;
                return Ok(bits);
            }
        }
        Err(self.malformed("a number without an end"))
    }

    /// Bytes with a varint length; -1 is null.
    #[inline]
    pub(super) fn sized(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        match self.varint()? {
            -1 => Ok(None),
            length => match usize::try_from(length) {
                Ok(length) => self.take(length).map(Some),
                Err(_) => Err(self.malformed("a negative length")),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_of_every_length() {
        // Values and bytes as in the description of Protocol Buffers' zigzag encoding, which Kafka took over.
        let cases: [(&[u8], i64); 8] = [
            (&[0x00], 0),
            (&[0x01], -1),
            (&[0x02], 1),
            (&[0x7e], 63),
            (&[0x80, 0x01], 64),
            (&[0xfe, 0xff, 0xff, 0xff, 0x0f], 2_147_483_647),
            (&[0xff, 0xff, 0xff, 0xff, 0x0f], -2_147_483_648),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], i64::MIN),
        ];
        for (bytes, value) in cases {
            let mut cursor = Cursor::new(bytes);
            assert_eq!(cursor.varlong(), Ok(value));
            assert!(cursor.rest().is_empty());
            if let Ok(value) = i32::try_from(value) {
                assert_eq!(Cursor::new(bytes).varint(), Ok(value));
            } else {
                assert!(Cursor::new(bytes).varint().is_err());
            }
            assert!(Cursor::new(&bytes[..bytes.len() - 1]).varlong().is_err());
        }
        assert!(Cursor::new(&[0x80; 11]).varlong().is_err());
    }

    #[test]
    fn lengths_are_checked() {
        assert_eq!(Cursor::new(&[1]).sized(), Ok(None));
        assert_eq!(Cursor::new(&[0]).sized(), Ok(Some(&[][..])));
        assert_eq!(Cursor::new(&[4, 7, 8]).sized(), Ok(Some(&[7, 8][..])));
        assert!(Cursor::new(&[4, 7]).sized().is_err());
        assert!(Cursor::new(&[3]).sized().is_err(), "-2");
        assert!(Cursor::new(&[0, 0, 0, 3, 1, 2]).count().is_err());
        assert_eq!(Cursor::new(&[0xff; 4]).count(), Ok(0));
        assert_eq!(Cursor::new(&[0xff, 0xff, 1]).string(), Ok(&[][..]));
        assert!(Cursor::new(&[0, 2, 1]).string().is_err());
    }
}
