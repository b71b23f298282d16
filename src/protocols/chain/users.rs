//! Who may use a proxy listener: names and passwords, compared so that the time it takes does not
//! tell how much of them was right.

use subtle::{Choice, ConstantTimeEq};

use crate::config::Secret;

/// One who may use a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// 1 to 255 bytes.
    pub name: Box<str>,
    /// 1 to 255 bytes.
    pub password: Secret,
}

/// True when a user of that name has that password. All are looked at, whoever it is.
pub fn admits(users: &[User], name: &[u8], password: &[u8]) -> bool {
    let is_user =
        |user: &User| user.name.as_bytes().ct_eq(name) & user.password.expose().ct_eq(password);
    let found = users
        .iter()
        .fold(Choice::from(0), |found, user| found | is_user(user));
    found.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, password: &str) -> User {
        User {
            name: name.into(),
            password: Secret::new(password.as_bytes()).unwrap(),
        }
    }

    #[test]
    fn a_name_goes_with_its_own_password() {
        let users = [user("ann", "one"), user("bob", "two")];
        for (name, password, want) in [
            ("ann", "one", true),
            ("bob", "two", true),
            ("ann", "two", false),
            ("bob", "one", false),
            ("ann", "", false),
            ("ann", "on", false),
            ("ann", "onee", false),
            ("", "one", false),
            ("", "", false),
            ("Ann", "one", false),
        ] {
            let found = admits(&users, name.as_bytes(), password.as_bytes());
            assert_eq!(found, want, "{name} {password}");
        }
        assert!(!admits(&[], b"", b""));
    }
}
