//! An object of one's own behind a manager: a bank whose transfers never lose money.
//!
//! `cargo run --example bank`

use multiproc::{Manager, Process, Result};
use std::collections::BTreeMap;

/// Lives in the server. It need not be serialisable, and needs no lock: whoever calls a method that
/// changes it is alone with it.
struct Bank {
    accounts: BTreeMap<String, u64>,
    transfers: u64,
}

/// Why no money was moved. It is a value of a method, so it travels.
#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
enum Refused {
    NoAccount(String),
    Overdrawn { there: u64 },
}

#[multiproc::managed]
impl Bank {
    /// A bank with these accounts.
    pub fn new(accounts: BTreeMap<String, u64>) -> Self {
        Self { accounts, transfers: 0 }
    }

    /// Moves money, all of it or none.
    pub fn transfer(
        &mut self,
        from: String,
        to: String,
        amount: u64,
    ) -> std::result::Result<(), Refused> {
        self.check(&to)?;
        let there = self.check(&from)?;
        let left = there.checked_sub(amount).ok_or(Refused::Overdrawn { there })?;
        self.accounts.insert(from, left);
        *self.accounts.entry(to).or_default() += amount;
        self.transfers += 1;
        Ok(())
    }

    /// What is in an account.
    pub fn balance(&self, account: String) -> Option<u64> {
        self.accounts.get(&account).copied()
    }

    /// All the money, and how often some was moved.
    pub fn audit(&self) -> (u64, u64) {
        (self.accounts.values().sum(), self.transfers)
    }

    /// Private: clients have no such method.
    fn check(&self, account: &str) -> std::result::Result<u64, Refused> {
        self.accounts.get(account).copied().ok_or_else(|| Refused::NoAccount(account.to_owned()))
    }
}

/// Moves money back and forth; how often it was refused.
fn trade(bank: BankProxy, seed: u64) -> Result<u32> {
    let names = ["Ada", "Bob", "Cid"];
    let mut refused = 0;
    for step in 0..500u64 {
        let (from, to) =
            (names[((step + seed) % 3) as usize], names[((step * 5 + seed * 2) % 3) as usize]);
        let moved = bank.transfer(from.to_owned(), to.to_owned(), (step * seed) % 120)?;
        refused += u32::from(moved.is_err());
    }
    Ok(refused)
}

fn main() -> Result<()> {
    let manager = Manager::start()?;
    let accounts = ["Ada", "Bob", "Cid"].map(|name| (name.to_owned(), 100)).into();
    let bank = BankProxy::new(&manager, accounts)?;

    let traders: Result<Vec<_>> =
        (1..=3).map(|seed| Process::spawn(trade, (bank.clone(), seed))).collect();
    let mut traders = traders?;
    // One of them is killed in the middle of it all.
    traders[2].kill()?;
    for (number, trader) in traders.iter_mut().enumerate() {
        match trader.join() {
            Ok(refused) => println!("trader {number} was refused {} times", refused?),
            Err(error) => println!("trader {number}: {error}"),
        }
    }
    let error = bank.transfer("Eve".to_owned(), "Ada".to_owned(), 1)?.unwrap_err();
    assert_eq!(error, Refused::NoAccount("Eve".to_owned()));
    let (total, transfers) = bank.audit()?;
    println!("{transfers} transfers later there are still {total} coins");
    assert_eq!(total, 300, "no money was lost");
    Ok(())
}
