//! Query strings. No parameter is silently ignored: the caller would take an unfiltered list
//! for a filtered one.

use crate::domain::identifier::percent_decode;
use crate::domain::time::Timestamp;
use crate::service::{Error, Keys, Page};

/// The decoded parameters.
#[derive(Debug)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// The parameters of a list that pages by number only.
    pub(crate) const PAGE: &[&str] = &["limit", "offset"];

    /// Decodes `name=value&…`, with `+` as a space. Rejects names that the path does not accept.
    pub(crate) fn parse(text: &str, names: &[&str]) -> Result<Self, Error> {
        let decode = |part: &str| {
            percent_decode(part, true)
                .ok_or_else(|| Error::BadRequest(format!("the query has a malformed escape: {part:?}")))
        };
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        });
        let pairs: Vec<(String, String)> = pairs.collect::<Result<_, Error>>()?;
        match pairs.iter().find(|(name, _)| !names.contains(&name.as_str())) {
            Some((name, _)) => Err(Error::BadRequest(format!(
                "this path does not accept the parameter {name:?}; it accepts {}",
                names.join(", ")
            ))),
            None => Ok(Query(pairs)),
        }
    }

    /// The value of a parameter; an error if it is given twice. An empty value counts as
    /// given: a script with an empty variable must not get the unfiltered list.
    pub(crate) fn get(&self, name: &str) -> Result<Option<&str>, Error> {
        let mut values = self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let first = values.next();
        if values.next().is_some() {
            return Err(Error::BadRequest(format!("{name} is given twice")));
        }
        Ok(first)
    }

    /// Like [`Query::get`], owned.
    pub(crate) fn text(&self, name: &str) -> Result<Option<String>, Error> {
        Ok(self.get(name)?.map(str::to_owned))
    }

    /// The value of a parameter that `parse` must accept.
    pub(crate) fn parsed<T>(
        &self,
        name: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.get(name)? else { return Ok(None) };
        let parsed = parse(value);
        parsed.map(Some).ok_or_else(|| Error::BadRequest(format!("{name}={value:?}: expected {expected}")))
    }

    /// The value of a parameter that is an RFC 3339 time.
    pub(crate) fn time(&self, name: &str) -> Result<Option<Timestamp>, Error> {
        self.parsed(name, "an RFC 3339 time", Timestamp::parse)
    }

    /// `before` (or `cursor`, its name in `X-Next-Cursor`) and `after`.
    pub(crate) fn keys(&self) -> Result<Keys, Error> {
        let (before, cursor) = (self.text("before")?, self.text("cursor")?);
        if before.is_some() && cursor.is_some() {
            return Err(Error::BadRequest(
                "before and cursor are the same parameter; give only one".to_owned(),
            ));
        }
        Ok(Keys { before: before.or(cursor), after: self.text("after")? })
    }

    /// `limit` and `offset`, clamped as documented.
    pub(crate) fn page(&self) -> Result<Page, Error> {
        self.page_of(Page::LIMIT_DEFAULT)
    }

    /// Like [`Query::page`], with another default limit.
    pub(crate) fn page_of(&self, default: u32) -> Result<Page, Error> {
        let number = |name| Ok::<_, Error>(self.get(name)?.and_then(|text| text.parse::<i64>().ok()));
        let limit = number("limit")?.unwrap_or(i64::from(default));
        let offset = number("offset")?.unwrap_or(0);
        Ok(Page {
            limit: u32::try_from(limit.clamp(1, Page::LIMIT_MAX.into())).unwrap_or(Page::LIMIT_MAX),
            offset: u32::try_from(offset.max(0)).unwrap_or(u32::MAX),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Query, Error> {
        Query::parse(text, &["limit", "offset", "from", "q"])
    }

    #[test]
    fn pages_are_clamped_as_the_contract_says() {
        for (query, limit, offset) in [
            ("", 50, 0),
            ("limit=10&offset=5", 10, 5),
            ("limit=0", 1, 0),
            ("limit=-3&offset=-3", 1, 0),
            ("limit=9999", 200, 0),
            ("limit=x&offset=x", 50, 0),
            ("limit=&offset=99999999999", 50, u32::MAX),
        ] {
            let page = parse(query).and_then(|query| query.page()).expect(query);
            assert_eq!((page.limit, page.offset), (limit, offset), "{query}");
        }
    }

    #[test]
    fn values_are_decoded_and_unreadable_ones_refused() {
        let query = parse("from=2099-01-01T00%3A00%3A00%2B01%3A00&q=a+b").expect("decodes");
        assert_eq!(
            query.time("from").expect("a time").map(|at| at.to_string()).as_deref(),
            Some("2098-12-31T23:00:00.000000Z")
        );
        assert_eq!(query.get("q").expect("once"), Some("a b"));
        assert!(parse("q=%zz").is_err());
        assert!(parse("from=yesterday").expect("decodes").time("from").is_err());
        assert!(parse("from=").expect("decodes").time("from").is_err());
        assert!(parse("agent=a").is_err());
        assert!(parse("q=1&q=2").expect("decodes").get("q").is_err());
    }
}
