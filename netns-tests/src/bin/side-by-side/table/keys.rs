//! `genkey`, `genpsk`, `pubkey`.

use crate::case::{Case, same};

pub const TABLE: &[Case] = &[
    same("wg genkey | wc -c"),
    same("wg genkey x"),
    same("wg genkey --help"),
    same("wg genpsk | wc -c"),
    same("wg genpsk x"),
    same("umask 022; wg genkey > k; wc -c < k"),
    same("umask 077; wg genkey > k; wc -c < k"),
    same("umask 022; wg genpsk > k; wc -c < k"),
    same("umask 026; wg genkey > k; wc -c < k"),
    same("wg genkey | wg pubkey | wc -c"),
    same("wg pubkey < $F/key"),
    same("wg pubkey < $F/unclamped"),
    same("wg pubkey < $F/white"),
    same("wg pubkey < $F/leading"),
    same("wg pubkey < $F/short"),
    same("wg pubkey < $F/trailing"),
    same("wg pubkey < $F/spare-bits"),
    same("wg pubkey < /dev/null"),
    same("wg pubkey x < $F/key"),
    same("wg pubkey --help < $F/key"),
    same("printf %s $KEY | wg pubkey"),
    same("printf '%s\\0\\n' $KEY | wg pubkey"),
    same("printf '%s%s' $KEY $KEY | wg pubkey"),
    same("echo AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= | wg pubkey"),
    same("echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa | wg pubkey"),
];
