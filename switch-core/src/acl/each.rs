//! What chains say of the first packets of a batch, together: each of the reads of one lookup waits for the one before, and so the cache
//! misses of all overlap.

use super::{Chain, Compiled, Header, Ruling, ruling};
use crate::prefetch::prefetch;
use crate::table::probes::Uncounted;
use arrayvec::ArrayVec;

/// What a chain is asked about a first packet.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    chain: u32,
    ends: [u128; 2],
    protocol: u8,
    number: Option<u16>,
    source_port: Option<u16>,
}

impl Compiled {
    /// The question that a chain is about a packet; none where it would be more than addresses and ports: it is not IP, or the chain's rules
    /// name further fields.
    #[inline]
    pub fn question(&self, chain: u32, header: &Header) -> Option<Asked> {
        let Header { ends, protocol, number, source_port, .. } = *header;
        let is_plain = self.chains[chain as usize].further.is_empty();
        ends.filter(|_| is_plain).map(|ends| Asked { chain, ends, protocol, number, source_port })
    }

    /// What [`Compiled::judge`] says, of each of several questions by its place, and of which chain.
    pub fn judge_each<const N: usize>(
        &self,
        asked: &ArrayVec<Asked, N>,
        mut says: impl FnMut(usize, u32, Option<Ruling>),
    ) {
        for Asked { protocol, number, source_port, .. } in asked {
            self.services.touch(*protocol, *number);
            self.sources.touch(*source_port);
        }
        let from: [usize; N] = self.identities.of_each(asked.len(), |n| asked[n].ends[0]);
        let to: [usize; N] = self.identities.of_each(asked.len(), |n| asked[n].ends[1]);
        let mut places = [Place::default(); N];
        for (n, (asked, place)) in asked.iter().zip(&mut places).enumerate() {
            let service = self.services.of_ip(asked.protocol, asked.number, Uncounted);
            let source_port = self.sources.of(asked.source_port, Uncounted);
            *place = Place { ends: [from[n], to[n]], words: [service.into(), source_port.into()] };
            place.touch(&self.chains[asked.chain as usize]);
        }
        let mut pairs = [[0; 2]; N];
        for ((asked, place), pair) in asked.iter().zip(&places).zip(&mut pairs) {
            let chain = &self.chains[asked.chain as usize];
            *pair = place.read(chain);
            chain.ends.touch(pair[0]);
            chain.words.touch(pair[1]);
        }
        let mut verdicts = [0; N];
        for ((asked, [ends, words]), verdict) in asked.iter().zip(pairs).zip(&mut verdicts) {
            let chain = &self.chains[asked.chain as usize];
            *verdict = chain.verdicts.place(chain.ends.at(ends), chain.words.at(words));
            chain.verdicts.touch(*verdict);
        }
        for (n, (asked, verdict)) in asked.iter().zip(verdicts).enumerate() {
            says(n, asked.chain, ruling(self.chains[asked.chain as usize].verdicts.at(verdict)));
        }
    }
}

/// Where a packet stands in a chain: its identities, and its classes of service and source port.
#[derive(Clone, Copy, Default)]
struct Place {
    ends: [usize; 2],
    words: [usize; 2],
}

impl Place {
    #[inline(always)]
    fn touch(&self, chain: &Chain) {
        prefetch(chain.source_rows.as_ptr().wrapping_add(self.ends[0]));
        prefetch(chain.destination_columns.as_ptr().wrapping_add(self.ends[1]));
        prefetch(chain.service_rows.as_ptr().wrapping_add(self.words[0]));
        prefetch(chain.source_port_columns.as_ptr().wrapping_add(self.words[1]));
    }

    /// Where both its pairs meet.
    #[inline(always)]
    fn read(&self, chain: &Chain) -> [usize; 2] {
        let [source, destination] = self.ends;
        let [service, source_port] = self.words;
        [
            chain.ends.place(chain.source_rows[source], chain.destination_columns[destination]),
            chain.words.place(chain.service_rows[service], chain.source_port_columns[source_port]),
        ]
    }
}
