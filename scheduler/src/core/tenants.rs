//! Tenants share a priority by deficit round robin over predicted device time (Shreedhar and Varghese, 1996).

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use super::{Nanos, RequestKey};

/// Device time that each tenant is granted in a round.
const QUANTUM: i64 = 10_000_000;
/// Of the places of all requests one in so many is kept by those of a lower priority.
const LOWER_SHARE: usize = 10;
/// Tenants that are told apart; those beyond share one place.
const TENANTS: usize = 256;
/// Priorities.
pub(super) const PRIORITIES: usize = 5;

#[derive(Debug)]
struct Account {
    tenant: u32,
    /// Its requests, the oldest first: serial and place.
    waiting: BTreeSet<(u64, usize)>,
    /// Device time that is left to it in this round, nanoseconds.
    deficit: i64,
}

impl Account {
    fn counts(&self) -> bool {
        !self.waiting.is_empty() || self.deficit < 0
    }
}

/// What one tenant has waiting with one priority.
pub(super) struct Crowd<'a> {
    waiting: &'a BTreeSet<(u64, usize)>,
    /// So many of them make no way.
    kept: usize,
}

impl Crowd<'_> {
    /// Those that may make way, the newest first, and how many of them.
    pub(super) fn newest(&self) -> (impl Iterator<Item = RequestKey>, usize) {
        let keys = self.waiting.iter().rev().map(|&(serial, place)| RequestKey { place, serial });
        (keys, self.waiting.len().saturating_sub(self.kept))
    }
}

/// Who waits, by priority, and what they have had.
#[derive(Debug, Default)]
pub(super) struct Tenants {
    names: HashMap<Arc<str>, u32>,
    accounts: [Vec<Account>; PRIORITIES],
}

impl Tenants {
    /// The number of a tenant; 0 is everybody who says nothing.
    pub(super) fn number(&mut self, name: Option<&Arc<str>>) -> u32 {
        let Some(name) = name else { return 0 };
        if let Some(&number) = self.names.get(name) {
            return number;
        }
        if self.names.len() + 1 >= TENANTS {
            // Names are the clients' to choose: those of whom nothing waits make room.
            let accounts = &self.accounts;
            let waits = |number: u32| accounts.iter().flatten().any(|account| account.tenant == number);
            self.names.retain(|_, number| waits(*number));
        }
        let taken = |number: &u32| self.names.values().any(|known| known == number);
        let Some(number) = (1..TENANTS as u32).find(|number| !taken(number)) else { return TENANTS as u32 };
        self.names.insert(name.clone(), number);
        number
    }

    fn account(&mut self, priority: u8, tenant: u32) -> Option<&mut Account> {
        self.accounts[priority as usize].iter_mut().find(|account| account.tenant == tenant)
    }

    /// A request of the tenant waits.
    pub(super) fn entered(&mut self, priority: u8, tenant: u32, key: RequestKey) {
        let entry = (key.serial, key.place);
        match self.account(priority, tenant) {
            Some(account) => _ = account.waiting.insert(entry),
            None => {
                let waiting = BTreeSet::from([entry]);
                self.accounts[priority as usize].push(Account { tenant, waiting, deficit: 0 });
            }
        }
    }

    /// A request of the tenant waits no more. Who has nothing waiting saves nothing up, but still owes what it had.
    pub(super) fn left(&mut self, priority: u8, tenant: u32, key: RequestKey) {
        let accounts = &mut self.accounts[priority as usize];
        let Some(at) = accounts.iter().position(|account| account.tenant == tenant) else { return };
        accounts[at].waiting.remove(&(key.serial, key.place));
        accounts.retain(Account::counts);
        if accounts.len() == 1 && accounts[0].waiting.is_empty() {
            accounts.clear();
        }
    }

    /// Requests that wait, by priority and tenant.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> std::collections::BTreeMap<(u8, u32), usize> {
        let of = |(priority, accounts): (usize, &Vec<Account>)| {
            let waiting = accounts.iter().filter(|account| !account.waiting.is_empty());
            waiting.map(|account| ((priority as u8, account.tenant), account.waiting.len())).collect::<Vec<_>>()
        };
        self.accounts.iter().enumerate().flat_map(of).collect()
    }

    /// Requests of a tenant that wait.
    pub(super) fn waiting_of(&self, priority: u8, tenant: u32) -> usize {
        let own = self.accounts[priority as usize].iter().find(|account| account.tenant == tenant);
        own.map_or(0, |account| account.waiting.len())
    }

    /// What may make way for a request of this priority and tenant, the least wanted first: of a lower priority, or of the
    /// same where another tenant has more waiting.
    /// Of each lower priority a tenth of all `places` stays: it would else be pushed out before it has waited long enough.
    pub(super) fn makes_way(&self, priority: u8, tenant: u32, places: usize) -> Vec<Crowd<'_>> {
        let own = self.waiting_of(priority, tenant);
        let mut crowds = Vec::new();
        for lower in (priority as usize..PRIORITIES).rev() {
            let same = lower == priority as usize;
            // Of its own priority no tenant is left with fewer than the request's own would have.
            let kept = if same { own + 1 } else { places / LOWER_SHARE / self.accounts[lower].len().max(1) };
            let of = self.accounts[lower].iter().filter(|account| !same || account.tenant != tenant);
            let from = crowds.len();
            crowds.extend(of.map(|account| Crowd { waiting: &account.waiting, kept }));
            crowds[from..].sort_by_key(|crowd| std::cmp::Reverse((crowd.waiting.len(), crowd.waiting.last().copied())));
        }
        crowds.retain(|crowd| crowd.waiting.len() > crowd.kept);
        crowds
    }

    /// The tenant was given so much predicted time. One that is alone takes nothing from others, so it owes nothing.
    pub(super) fn charge(&mut self, priority: u8, tenant: u32, time: Nanos) {
        if self.accounts[priority as usize].len() < 2 {
            return;
        }
        if let Some(account) = self.account(priority, tenant) {
            account.deficit = account.deficit.saturating_sub_unsigned(time);
        }
    }

    /// Whether several tenants want one priority.
    pub(super) fn contend(&self) -> bool {
        self.accounts.iter().any(|accounts| accounts.len() > 1)
    }

    /// The lowest priority of which requests wait, where there are several.
    pub(super) fn least_urgent(&self) -> Option<u8> {
        let waits = |accounts: &Vec<Account>| accounts.iter().any(|account| !account.waiting.is_empty());
        let mut waiting = (0..PRIORITIES as u8).rev().filter(|priority| waits(&self.accounts[usize::from(*priority)]));
        let least = waiting.next();
        waiting.next().and(least)
    }

    /// Whether the tenant may be served in this round.
    pub(super) fn is_due(&self, priority: u8, tenant: u32) -> bool {
        let accounts = &self.accounts[priority as usize];
        accounts.len() < 2 || accounts.iter().any(|account| account.tenant == tenant && account.deficit > 0)
    }

    /// None of `present` may be served in this round: grants as many rounds as the first of them needs.
    pub(super) fn next_round(&mut self, priority: u8, present: &[u32]) {
        let accounts = &mut self.accounts[priority as usize];
        let here = |account: &Account| present.contains(&account.tenant);
        let rounds =
            accounts.iter().filter(|account| here(account)).map(|account| -account.deficit / QUANTUM + 1).min();
        let granted = rounds.unwrap_or(0).saturating_mul(QUANTUM);
        // Rounds also pass for those who owe and have nothing waiting.
        for account in accounts.iter_mut().filter(|account| here(account) || account.waiting.is_empty()) {
            account.deficit = account.deficit.saturating_add(granted);
        }
        accounts.retain(Account::counts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: RequestKey = RequestKey { place: 0, serial: 1 };

    #[test]
    fn tenants_get_equal_time_however_long_their_batches_are() {
        let mut tenants = Tenants::default();
        let numbers = [Some(Arc::from("a")), Some(Arc::from("b")), None].map(|name| tenants.number(name.as_ref()));
        assert_eq!(numbers, [1, 2, 0]);
        numbers.iter().for_each(|tenant| tenants.entered(3, *tenant, KEY));
        let batch = [1_000_000, 7_000_000, 20_000_000];
        let mut served = [0u64; 3];
        for _ in 0..10_000 {
            let at = (0..3).filter(|at| tenants.is_due(3, numbers[*at])).min_by_key(|at| served[*at]);
            let Some(at) = at else {
                tenants.next_round(3, &numbers);
                continue;
            };
            served[at] += batch[at];
            tenants.charge(3, numbers[at], batch[at]);
        }
        let (least, most) = (served.iter().min().unwrap(), served.iter().max().unwrap());
        assert!(most - least <= 40_000_000, "{served:?}");
    }

    #[test]
    fn a_tenant_alone_is_always_due() {
        let mut tenants = Tenants::default();
        tenants.entered(0, 7, KEY);
        tenants.charge(0, 7, 1 << 40);
        assert!(tenants.is_due(0, 7) && !tenants.contend());
        tenants.entered(0, 8, KEY);
        assert!(!tenants.is_due(0, 7) && tenants.contend());
        tenants.left(0, 7, KEY);
        assert!(tenants.is_due(0, 8));
    }
}
