//! Signatures over bodies: HMAC with SHA-256 (RFC 2104), in hexadecimal after `sha256=`.

use std::fmt::Write;

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

const PREFIX: &str = "sha256=";

fn mac(secret: &SecretString, parts: &[&[u8]]) -> Hmac<Sha256> {
    // A key of any length is one.
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()).expect("HMAC takes any key");
    parts.iter().for_each(|part| mac.update(part));
    mac
}

/// The signature over some parts, one after the other.
pub fn sign(secret: &SecretString, parts: &[&[u8]]) -> String {
    let mut text = PREFIX.to_owned();
    for byte in mac(secret, parts).finalize().into_bytes() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Whether a signature is that over `body`, in a time that does not tell where it differs.
pub fn verify(secret: &SecretString, body: &[u8], signature: &str) -> bool {
    let Some(given) = signature.trim().strip_prefix(PREFIX).and_then(unhex) else { return false };
    mac(secret, &[body]).verify_slice(&given).is_ok()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    digits.chunks(2).map(|pair| Some(digit(pair[0])? * 16 + digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Test case 2 of RFC 4231.
    #[test]
    fn signatures_are_those_of_the_standard() {
        let secret = SecretString::from("Jefe");
        let expected = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(sign(&secret, &[b"what do ya want ", b"for nothing?"]), expected);
        assert!(verify(&secret, b"what do ya want for nothing?", expected));
        assert!(verify(&secret, b"what do ya want for nothing?", &expected.to_uppercase().replace("SHA", "sha")));
    }

    #[test]
    fn what_is_no_signature_is_refused() {
        let secret = SecretString::from("s");
        let hex = "a".repeat(63);
        for text in [
            "",
            "sha256=",
            "sha1=00",
            &format!("sha256={hex}"),
            &format!("sha256={hex}g"),
            &format!("sha256={}", "é".repeat(32)),
        ] {
            assert!(!verify(&secret, b"x", text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn only_the_body_that_was_signed_with_that_secret_passes(
            secret in "\\PC{0,80}", body in prop::collection::vec(any::<u8>(), 0..200), bit in 0..4096usize, text in "\\PC{0,90}",
        ) {
            let secret = SecretString::from(secret);
            let signature = sign(&secret, &[&body]);
            prop_assert!(verify(&secret, &body, &signature));
            prop_assert!(!verify(&secret, &body, &text));
            let other = SecretString::from(format!("{}x", secret.expose_secret()));
            prop_assert!(!verify(&other, &body, &signature));
            if !body.is_empty() {
                let mut tampered = body.clone();
                let at = bit % (body.len() * 8);
                tampered[at / 8] ^= 1 << (at % 8);
                prop_assert!(!verify(&secret, &tampered, &signature));
            }
        }
    }
}
