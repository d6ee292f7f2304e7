//! Objects of one's own types, behind the proxies that `#[multiproc::managed]` writes.

mod common;

use common::sync::{finish, finish_all, start};
use common::{wait_until, watchdog};
use multiproc::Manager;
use multiproc::manager::{Dict, List};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

/// Accounts; nothing here is serialisable.
struct Bank {
    accounts: BTreeMap<u32, u64>,
    transfers: AtomicU32,
    journal: Option<List<String>>,
}

#[multiproc::managed]
impl Bank {
    /// Opens accounts with this much in each.
    pub fn new(accounts: u32, each: u64) -> Self {
        let accounts = (0..accounts).map(|account| (account, each)).collect();
        Self { accounts, transfers: AtomicU32::new(0), journal: None }
    }

    pub fn with_journal(journal: List<String>) -> Bank {
        Bank { journal: Some(journal), ..Self::new(2, 10) }
    }

    pub fn balance(&self, account: u32) -> Option<u64> {
        self.accounts.get(&account).copied()
    }

    pub fn total(&self) -> u64 {
        self.accounts.values().sum()
    }

    pub fn transfer(&mut self, from: u32, to: u32, amount: u64) -> Result<u32, String> {
        if from == to {
            return Err(format!("from account {from} to itself"));
        }
        let there = self.balance(from).ok_or_else(|| format!("no account {from}"))?;
        let left =
            there.checked_sub(amount).ok_or_else(|| format!("account {from} has {there}"))?;
        let target = self.accounts.get_mut(&to).ok_or_else(|| format!("no account {to}"))?;
        *target += amount;
        self.accounts.insert(from, left);
        if let Some(journal) = &self.journal {
            journal.push(format!("{from} to {to}: {amount}")).expect("a call in the server");
        }
        Ok(self.count())
    }

    pub fn rob(&mut self, account: u32) {
        self.accounts.remove(&account);
        panic!("account {account} was robbed");
    }

    pub fn unpaired((a, b): (u32, u32), mut c: u32) -> Self {
        c += a + b;
        Self::new(c, 1)
    }

    /// Arguments may have the names that the proxy has use for.
    pub fn named(manager: u32, object: u64) -> Self {
        Self::new(manager, object)
    }

    pub fn give(&mut self, object: u32, manager: u64) -> Option<u64> {
        self.accounts.insert(object, manager)
    }

    #[cfg(any())]
    pub fn not_here(&self, what: NotHere) -> NotHere {
        what
    }

    fn count(&self) -> u32 {
        self.transfers.fetch_add(1, Ordering::Relaxed) + 1
    }
}

mod inner {
    pub struct Plain(pub u64);
}
use inner::Plain;

#[multiproc::managed(proxy = Remote)]
impl Plain {
    pub fn get(&self) -> u64 {
        self.0
    }
    pub fn new() -> Self {
        Plain(7)
    }
}

#[test]
fn methods_are_called_in_the_server_and_no_transfer_is_lost() {
    watchdog();
    let manager = Manager::start().unwrap();
    let bank = BankProxy::new(&manager, 4, 100).unwrap();
    let trade = |bank: BankProxy, seed: u32| {
        for step in 0..100 {
            let (from, to) = ((seed + step) % 4, (seed * 3 + step * 7) % 4);
            let _ = bank.transfer(from, to, u64::from(step % 50)).expect("the server lives");
        }
    };
    finish_all([1, 2, 3].map(|seed| start(trade, (bank.clone(), seed))));
    assert_eq!(bank.total().unwrap(), 400);
}

#[test]
fn an_err_is_a_value_and_a_panic_is_an_error_of_the_call() {
    watchdog();
    let manager = Manager::start().unwrap();
    let bank = BankProxy::new(&manager, 2, 10).unwrap();
    assert_eq!(bank.transfer(0, 1, 11).unwrap().unwrap_err(), "account 0 has 10");
    assert_eq!(bank.transfer(0, 1, 10).unwrap(), Ok(1));
    let error = finish(start(|bank: BankProxy| bank.rob(0).err(), (bank.clone(),))).unwrap();
    assert!(error.is_panic(), "{error}");
    assert_eq!(error.panic().unwrap().message, "account 0 was robbed");
    assert_eq!((bank.balance(0).unwrap(), bank.balance(1).unwrap()), (None, Some(20)));
}

#[test]
fn constructors_have_any_name_and_arguments_that_are_proxies() {
    watchdog();
    let manager = Manager::start().unwrap();
    let journal = manager.list().unwrap();
    let bank = BankProxy::with_journal(&manager, journal.clone()).unwrap();
    bank.transfer(0, 1, 3).unwrap().unwrap();
    assert_eq!(journal.snapshot().unwrap(), ["0 to 1: 3"]);
    assert_eq!(BankProxy::unpaired(&manager, (1, 2), 3).unwrap().total().unwrap(), 6);
    let named = BankProxy::named(&manager, 2, 4).unwrap();
    assert_eq!(named.give(1, 9).unwrap(), Some(4));
    assert_eq!(Remote::new(&manager).unwrap().get().unwrap(), 7);
}

/// What must be given before there is an object.
struct Account {
    owner: String,
}

type AccountResult<T> = Result<T, BTreeMap<u32, String>>;

#[multiproc::managed]
impl Account {
    pub fn open(owner: String, deposit: u64) -> Result<Self, String> {
        match deposit {
            0 => Err(format!("{owner} has nothing")),
            666 => panic!("the devil's own deposit"),
            _ => Ok(Self { owner }),
        }
    }

    /// The error of an alias is known to the compiler only.
    pub fn of(owner: String) -> AccountResult<Account> {
        let problems: BTreeMap<u32, String> =
            owner.is_empty().then(|| (1, "nobody".to_owned())).into_iter().collect();
        if problems.is_empty() { Ok(Self { owner }) } else { Err(problems) }
    }

    /// Fails with an error of this crate, when it makes an object of its own.
    pub fn with_book(book: List<String>) -> multiproc::Result<Self> {
        book.push("opened".to_owned())?;
        let owner = book.get(7)?.unwrap_or_default();
        book.swap(0, 9)?;
        Ok(Self { owner })
    }

    pub fn owner(&self) -> String {
        self.owner.clone()
    }
}

#[test]
fn a_constructor_that_fails_gives_its_error_and_no_object() {
    watchdog();
    let manager = Manager::start().unwrap();
    let open = |manager: Manager, deposit: u64| {
        AccountProxy::open(&manager, "Eve".to_owned(), deposit)
            .map(|account| account.map(|account| account.owner().expect("the server lives")))
    };
    let there = |deposit: u64| finish(start(open, (manager.clone(), deposit)));
    assert_eq!(there(0).unwrap().unwrap_err(), "Eve has nothing");
    assert_eq!(there(5).unwrap().unwrap(), "Eve");
    let error = there(666).unwrap_err();
    assert!(error.is_panic(), "{error}");
    assert_eq!(error.panic().unwrap().message, "the devil's own deposit");
    wait_until("nothing is left of them", || manager.objects().unwrap() == 0);

    let problems = AccountProxy::of(&manager, String::new()).unwrap().unwrap_err();
    assert_eq!(problems[&1], "nobody");
    assert_eq!(manager.objects().unwrap(), 0);
    let account = AccountProxy::of(&manager, "Bob".to_owned()).unwrap().unwrap();
    assert_eq!((account.owner().unwrap(), manager.objects().unwrap()), ("Bob".to_owned(), 1));
}

#[test]
fn the_error_of_a_constructor_may_be_one_of_a_call_that_it_made() {
    watchdog();
    let manager = Manager::start().unwrap();
    let book = manager.list::<String>().unwrap();
    let error = AccountProxy::with_book(&manager, book.clone()).unwrap().unwrap_err();
    assert!(error.is_invalid_input(), "{error}");
    assert_eq!((book.snapshot().unwrap(), manager.objects().unwrap()), (vec!["opened".into()], 1));
    // That of the call itself is the outer one.
    manager.shutdown();
    let error = AccountProxy::open(&manager, "Eve".to_owned(), 1).unwrap_err();
    assert!(error.is_disconnected(), "{error}");
}

#[test]
fn a_proxy_of_ones_own_type_is_kept_in_a_dictionary() {
    watchdog();
    let manager = Manager::start().unwrap();
    let banks = manager.dict::<u32, BankProxy>().unwrap();
    banks.insert(1, BankProxy::new(&manager, 1, 5).unwrap()).unwrap();
    let look = |banks: Dict<u32, BankProxy>| banks.get(&1).unwrap().unwrap().total().unwrap();
    assert_eq!(finish(start(look, (banks.clone(),))), 5);
    assert_eq!(manager.objects().unwrap(), 2);
}

#[test]
fn any_type_is_held_without_the_attribute() {
    watchdog();
    let manager = Manager::start().unwrap();
    let tally = manager.create(|start: u32| (start, Vec::<String>::new()), 5).unwrap();
    tally.with_mut(|tally, word: String| tally.1.push(word), "a".to_owned()).unwrap();
    assert_eq!(tally.with(|tally, ()| (tally.0, tally.1.len()), ()).unwrap(), (5, 1));
}
