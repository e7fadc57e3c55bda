//! Reading and writing a handshake message field by field.
//!
//! The length of a message is fixed, and its fields are known when the program is compiled. A method
//! panics if the rest of the message is shorter than the field, which no input can bring about.

/// The rest of a message, whose fields are taken from the front one after the other.
pub(crate) struct Fields<T>(pub T);

impl Fields<&[u8]> {
    /// Reads the next field.
    pub fn get<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self
            .0
            .split_first_chunk()
            .expect("the fields of a message add up to its length");
        self.0 = rest;
        *field
    }
}

impl<'a> Fields<&'a mut [u8]> {
    /// The next field, to be filled in.
    pub fn take<const N: usize>(&mut self) -> &'a mut [u8; N] {
        let (field, rest) = std::mem::take(&mut self.0)
            .split_first_chunk_mut()
            .expect("the fields of a message add up to its length");
        self.0 = rest;
        field
    }

    /// Writes the next field.
    pub fn put<const N: usize>(&mut self, field: &[u8; N]) {
        *self.take() = *field;
    }
}
