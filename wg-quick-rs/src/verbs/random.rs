//! Random bytes for new keys.

use rand_core::{OsRng, TryRngCore};
use zeroize::Zeroizing;

use crate::steps::failure::Failure;

/// The bytes of a new key.
///
/// # Errors
/// The system has no random numbers.
pub fn key() -> Result<Zeroizing<[u8; 32]>, Failure> {
    let mut bytes = Zeroizing::new([0; 32]);
    OsRng.try_fill_bytes(&mut *bytes).map_err(Failure::new)?;
    Ok(bytes)
}
