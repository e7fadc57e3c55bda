//! Policy rules: which packets look in which routing table.

use std::fmt;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleHeader, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use serde::{Deserialize, Serialize};

use super::{Error, Netlink};
use crate::sys::udp::Family;

/// A rule that sends packets to a routing table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Packets of this family.
    pub family: Family,
    /// Order among rules, lowest first; when adding, `None` is just before all others. A rule that is
    /// listed always has one.
    pub priority: Option<u32>,
    /// The table to look in.
    pub table: u32,
    /// Only packets with this fwmark.
    pub fwmark: Option<u32>,
    /// All packets except those that match.
    pub not: bool,
    /// Pass over routes found whose prefix is this long or shorter; 0 passes over default routes.
    pub suppress_prefix_length: Option<u32>,
}

impl Rule {
    /// All packets of `family` to `table`.
    pub fn new(family: Family, table: u32) -> Self {
        Rule {
            family,
            priority: None,
            table,
            fwmark: None,
            not: false,
            suppress_prefix_length: None,
        }
    }

    fn message(&self) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = match self.family {
            Family::V4 => AddressFamily::Inet,
            Family::V6 => AddressFamily::Inet6,
        };
        // A table above 255 does not fit the header; FRA_TABLE has the last word.
        message.header.table = u8::try_from(self.table).unwrap_or(0);
        message.header.action = RuleAction::ToTable;
        message.header.flags = if self.not {
            RuleFlags::Invert
        } else {
            RuleFlags::empty()
        };
        let attributes = &mut message.attributes;
        attributes.push(RuleAttribute::Table(self.table));
        attributes.extend(self.priority.map(RuleAttribute::Priority));
        attributes.extend(self.fwmark.map(RuleAttribute::FwMark));
        attributes.extend(
            self.suppress_prefix_length
                .map(RuleAttribute::SuppressPrefixLen),
        );
        message
    }

    /// `None` of a rule that does something else than send to a table, that has conditions which
    /// [`Rule`] has no field for, or of another family.
    fn from_message(message: &RuleMessage) -> Option<Self> {
        let RuleHeader {
            family,
            dst_len,
            src_len,
            tos,
            table,
            action,
            flags,
        } = &message.header;
        let family = match family {
            AddressFamily::Inet => Family::V4,
            AddressFamily::Inet6 => Family::V6,
            _ => return None,
        };
        if *action != RuleAction::ToTable || (*dst_len, *src_len, *tos) != (0, 0, 0) {
            return None;
        }
        let mut rule = Rule::new(family, (*table).into());
        // Of 0 the kernel says nothing.
        rule.priority = Some(0);
        rule.not = flags.contains(RuleFlags::Invert);
        for attribute in &message.attributes {
            match attribute {
                RuleAttribute::Table(table) => rule.table = *table,
                RuleAttribute::Priority(priority) => rule.priority = Some(*priority),
                RuleAttribute::FwMark(mark) => rule.fwmark = Some(*mark),
                // -1 says that there is none.
                RuleAttribute::SuppressPrefixLen(len) if *len != u32::MAX => {
                    rule.suppress_prefix_length = Some(*len);
                }
                RuleAttribute::FwMask(mask) if *mask != u32::MAX => return None,
                RuleAttribute::Iifname(_)
                | RuleAttribute::Oifname(_)
                | RuleAttribute::L3MDev(true)
                | RuleAttribute::UidRange(_)
                | RuleAttribute::IpProtocol(_)
                | RuleAttribute::SourcePortRange(_)
                | RuleAttribute::DestinationPortRange(_) => return None,
                _ => {}
            }
        }
        Some(rule)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} rule for table {}", self.family, self.table)
    }
}

impl Netlink {
    /// Adds a rule.
    ///
    /// # Errors
    /// [`Error::is_present`]; [`Error::is_family_unknown`]; EPERM.
    pub fn add_rule(&mut self, rule: &Rule) -> Result<(), Error> {
        let message = RouteNetlinkMessage::NewRule(rule.message());
        self.request(
            message,
            NLM_F_CREATE | NLM_F_EXCL,
            format_args!("add {rule}"),
        )
        .map(drop)
    }

    /// Removes the first rule that agrees in everything given.
    ///
    /// # Errors
    /// [`Error::is_absent`]; EPERM.
    pub fn delete_rule(&mut self, rule: &Rule) -> Result<(), Error> {
        let message = RouteNetlinkMessage::DelRule(rule.message());
        self.request(message, 0, format_args!("remove {rule}"))
            .map(drop)
    }

    /// Lists the rules of one family that send to a table, in their order. Those with conditions
    /// that [`Rule`] has no field for are left out.
    ///
    /// # Errors
    /// [`Error::is_family_unknown`].
    pub fn rules(&mut self, family: Family) -> Result<Vec<Rule>, Error> {
        let mut message = RuleMessage::default();
        message.header.family = Rule::new(family, 0).message().header.family;
        let replies = self.dump(RouteNetlinkMessage::GetRule(message), "list rules")?;
        let rules = replies.iter().filter_map(|reply| match reply {
            RouteNetlinkMessage::NewRule(message) => Rule::from_message(message),
            _ => None,
        });
        Ok(rules.filter(|rule| rule.family == family).collect())
    }
}
