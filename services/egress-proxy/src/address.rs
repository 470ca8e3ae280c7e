//! Which addresses may be spoken to, whatever their names.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use bailey_plugin::egress::Reach;

/// What an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Anybody's: the internet.
    Public,
    /// Of the operator's own world, or of nobody's: private, shared (CGNAT, tailnets), link-local (metadata services), documentation, benchmarks.
    Own,
    /// Never a neighbour: this very host, everybody, nobody, or another address in disguise.
    Never,
}

/// A network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    address: IpAddr,
    bits: u32,
}

const fn v4(a: u8, b: u8, c: u8, d: u8, bits: u32) -> Prefix {
    Prefix {
        address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        bits,
    }
}

#[expect(clippy::many_single_char_names, reason = "eight segments")]
const fn v6(segments: [u16; 8], bits: u32) -> Prefix {
    let [a, b, c, d, e, f, g, h] = segments;
    Prefix {
        address: IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h)),
        bits,
    }
}

/// IANA's registries of special-purpose addresses (RFC 6890 and its updates), the narrower before the wider. What no line holds is public in
/// IPv4 and [`Class::Never`] in IPv6, where only 2000::/3 is given out.
const SPECIAL: [(Prefix, Class); 34] = [
    (v4(0, 0, 0, 0, 8), Class::Never),                 // This network
    (v4(10, 0, 0, 0, 8), Class::Own),                  // Private
    (v4(100, 64, 0, 0, 10), Class::Own),               // Shared: CGNAT, tailnets
    (v4(127, 0, 0, 0, 8), Class::Never),               // Loopback
    (v4(169, 254, 0, 0, 16), Class::Own),              // Link-local, metadata services
    (v4(172, 16, 0, 0, 12), Class::Own),               // Private
    (v4(192, 0, 0, 0, 24), Class::Own),                // IETF assignments, metadata services
    (v4(192, 0, 2, 0, 24), Class::Own),                // Documentation
    (v4(192, 88, 99, 0, 24), Class::Never),            // 6to4 relays
    (v4(192, 168, 0, 0, 16), Class::Own),              // Private
    (v4(198, 18, 0, 0, 15), Class::Own),               // Benchmarks
    (v4(198, 51, 100, 0, 24), Class::Own),             // Documentation
    (v4(203, 0, 113, 0, 24), Class::Own),              // Documentation
    (v4(224, 0, 0, 0, 4), Class::Never),               // Multicast
    (v4(240, 0, 0, 0, 4), Class::Never),               // Reserved, broadcast
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 128), Class::Never), // Unspecified
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), Class::Never), // Loopback
    (v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96), Class::Never), // IPv4 in disguise: mapped
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 96), Class::Never),  // compatible
    (v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96), Class::Never), // translated
    (v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96), Class::Never), // NAT64
    (v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48), Class::Never), // NAT64, local
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32), Class::Never), // Teredo
    (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), Class::Own), // Documentation
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), Class::Never), // IETF assignments
    (v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), Class::Never), // 6to4
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), Class::Own), // Documentation
    (v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3), Class::Public), // All that is given out
    (v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128), Class::Own), // A metadata service
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), Class::Own), // Unique local
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), Class::Own), // Link-local
    (v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10), Class::Own), // Site-local
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), Class::Never), // Multicast
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 0), Class::Never),   // Given to nobody
];

/// What `address` is.
pub fn class(address: IpAddr) -> Class {
    let special = SPECIAL.iter().find(|(prefix, _)| prefix.holds(address));
    special.map_or(Class::Public, |(_, class)| *class)
}

/// Whether a host that is granted as `reach` says may be at `address`. `own` are the networks that this process is on: there every service
/// of the stack has a name of one word, so a name leads to none of them.
pub fn may_be_at(reach: Reach, address: IpAddr, own: &[Prefix]) -> bool {
    let by_name = || !own.iter().any(|prefix| prefix.holds(address));
    match (class(address), reach) {
        (Class::Public | Class::Own, Reach::At(_)) => true,
        (Class::Public, Reach::LocalName | Reach::PublicName) | (Class::Own, Reach::LocalName) => {
            by_name()
        }
        (Class::Own, Reach::PublicName) | (Class::Never, _) => false,
    }
}

impl Prefix {
    /// The network of the first `bits` bits of `address`.
    pub fn new(address: IpAddr, bits: u32) -> Self {
        Self { address, bits }
    }

    /// Whether `address` is in it.
    pub fn holds(&self, address: IpAddr) -> bool {
        // A prefix of no bits leaves nothing to compare, and a shift by the whole width is none.
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differ = own.to_bits() ^ other.to_bits();
                differ
                    .checked_shr(32_u32.saturating_sub(self.bits))
                    .unwrap_or(0)
                    == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differ = own.to_bits() ^ other.to_bits();
                differ
                    .checked_shr(128_u32.saturating_sub(self.bits))
                    .unwrap_or(0)
                    == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// The networks that this process has an interface on: the stack's own, and the gateways to the host.
pub fn own_networks() -> io::Result<Vec<Prefix>> {
    let mut own = of_routes(&std::fs::read_to_string("/proc/net/route")?);
    let six = Path::new("/proc/net/if_inet6");
    match std::fs::read_to_string(six) {
        Ok(text) => own.extend(of_addresses(&text)),
        // A kernel without IPv6.
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    Ok(own)
}

/// `/proc/net/route`: networks that are reached without a gateway. Addresses are in the machine's byte order.
fn of_routes(text: &str) -> Vec<Prefix> {
    const GATEWAY: u32 = 2;
    let route = |line: &str| {
        let mut fields = line.split_whitespace();
        let mut hex = |skip| u32::from_str_radix(fields.nth(skip)?, 16).ok();
        let (to, flags, mask) = (hex(1)?, hex(1)?, hex(3)?);
        let address = Ipv4Addr::from(to.to_ne_bytes());
        let bits = Ipv4Addr::from(mask.to_ne_bytes()).to_bits().leading_ones();
        let near = flags & GATEWAY == 0 && bits > 0;
        near.then(|| Prefix::new(address.into(), bits))
    };
    text.lines().skip(1).filter_map(route).collect()
}

/// `/proc/net/if_inet6`: address, interface, length of the prefix, all hexadecimal.
fn of_addresses(text: &str) -> Vec<Prefix> {
    let address = |line: &str| {
        let mut fields = line.split_whitespace();
        let address = u128::from_str_radix(fields.next()?, 16).ok()?;
        let bits = u32::from_str_radix(fields.nth(1)?, 16).ok()?;
        Some(Prefix::new(Ipv6Addr::from_bits(address).into(), bits))
    };
    text.lines().filter_map(address).collect()
}

#[cfg(test)]
mod tests;
