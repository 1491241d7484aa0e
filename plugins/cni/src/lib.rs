//! The CNI plugin: a container runtime attaches containers to the switch. It speaks the Container Network
//! Interface, 0.3.1 to 1.1.0, and knows the switch only through its socket.
//!
//! | module | what |
//! |---|---|
//! | [`invocation`] | what the runtime says in the environment |
//! | [`conf`] | what it says on standard input: checked, all problems at once |
//! | [`fields`] | an object's fields, taken one by one |
//! | [`version`] | the versions of the words, and what each knows |
//! | [`answer`] | results as each version writes them |
//! | [`refusal`] | errors: the specification's codes, and what to do |
//! | [`run`] | which verb does what |
//! | [`add`], [`del`], [`check`], [`gc`], [`status`] | the verbs |
//! | [`chain`] | the list of plugins that ours is one of |
//! | [`guard`] | what a container may say of itself |
//! | [`bandwidth`] | how fast a container may send and be sent |
//! | [`outside`] | how a container reaches the outside and is reached |
//! | [`workload`] | what it is to network policies |
//! | [`ipam`] | addresses: from the daemon's pool, or from another plugin |
//! | [`delegate`] | running another plugin |
//! | [`switch`] | the daemon, as a plugin needs it |
//! | [`given`] | whom another plugin has given addresses |
//! | [`rules`] | rules of a container's namespace |
//! | [`second`] | a second interface on a network that the container is on |
//! | [`pending`] | deletions that wait for the daemon |
//! | [`notes`] | attachments written to files |
//! | [`netns`] | what is really in a container's namespace |
//! | [`manual`] | its page of the manual |
//! | [`fuzz`] | what the fuzz target does |

pub mod add;
pub mod answer;
pub mod bandwidth;
pub mod chain;
pub mod check;
pub mod conf;
pub mod del;
pub mod delegate;
pub mod fields;
pub mod fuzz;
pub mod gc;
pub mod given;
pub mod guard;
pub mod invocation;
pub mod ipam;
pub mod manual;
pub mod netns;
pub mod notes;
pub mod outside;
pub mod pending;
pub mod refusal;
pub mod rules;
pub mod run;
pub mod second;
pub mod status;
pub mod switch;
pub mod version;
pub mod workload;
