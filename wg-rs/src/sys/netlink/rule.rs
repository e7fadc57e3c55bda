//! Policy routing rules: which packets use which routing table.

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
    /// Order among rules, lowest first. A new rule without a priority is placed before all others;
    /// a listed rule always has one.
    pub priority: Option<u32>,
    /// The routing table.
    pub table: u32,
    /// Matches only packets with this fwmark.
    pub fwmark: Option<u32>,
    /// Inverts the match.
    pub not: bool,
    /// Ignores routes whose prefix is at most this long; 0 ignores default routes.
    pub suppress_prefix_length: Option<u32>,
}

impl Rule {
    /// A rule that sends all packets of `family` to `table`.
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
        // A table number above 255 does not fit in the header; FRA_TABLE overrides the header.
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

    /// None if the rule does anything other than selecting a table, has conditions for which
    /// [`Rule`] has no field, or is of another family.
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
        // The kernel leaves out a fwmark of 0.
        rule.priority = Some(0);
        rule.not = flags.contains(RuleFlags::Invert);
        for attribute in &message.attributes {
            match attribute {
                RuleAttribute::Table(table) => rule.table = *table,
                RuleAttribute::Priority(priority) => rule.priority = Some(*priority),
                RuleAttribute::FwMark(mark) => rule.fwmark = Some(*mark),
                // -1 means none.
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

    /// Removes the first rule that matches in all given fields.
    ///
    /// # Errors
    /// [`Error::is_absent`]; EPERM.
    pub fn delete_rule(&mut self, rule: &Rule) -> Result<(), Error> {
        let message = RouteNetlinkMessage::DelRule(rule.message());
        self.request(message, 0, format_args!("remove {rule}"))
            .map(drop)
    }

    /// Lists the rules of one family that select a table, in their order. Rules with conditions for
    /// which [`Rule`] has no field are left out.
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
