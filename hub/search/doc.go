// Package search is the randomized search for holes in the promises of the
// contract: a few hubs on the log in Redis, on a model Redis, with clients that
// resume anywhere, while all that can happen to Redis and to connections does
// happen. After each message that a client reads the promises are checked, and
// at the end whether everything came. Time is synctest's, so a schedule takes a
// few milliseconds.
//
// A schedule follows from its data but for what the scheduler, the order of maps
// and the dice of the code decide: so a failing one may pass at times, and a
// failure prints all that happened.
//
// # Rules
//
// What closes a hole can be switched off in the tests, and the search then finds
// the hole: rules of the hub in hub (TestRulesAreNeeded), those of the live
// connection and of the scripts in hub/redislog.
//
//	hole                                          closed by, in          switch
//	seqs given again after a failover             the scripts            life, seqs go on, above the index
//	the last event of all is lost                 hub                    verify
//	… or one in the middle                        hub                    hole
//	trimmed, expired or forgotten events          hub                    prev, vanished, floor
//	                                              the scripts            floor of the unknown, of the forgotten, without index
//	streams of another life                       the scripts            no stream of the unknown, unknown is not retained
//	cursors of another epoch                      hub, the scripts       epoch, base
//	a late message of the old primary             hub                    live epoch
//	an id ahead of what was sent                  hub                    frontier, ids
//	a cursor ahead of the log                     hub                    ahead
//	a client ahead of its instance                hub                    meet
//	an answer that is older than what is known    hub                    reach
//	events while a client joins                   hub                    catch up
//	a gap that stands for later losses too        hub                    told
//	several subscriptions to one topic            hub                    owner, start
//	a break that nobody tells of                  live connection        end
//	heard before Redis listens for us             live connection        confirmed, nth
//	a connection that does not answer             live connection        answer
//	a slot that leaves                            live connection        left
//	a replica that hears nothing, or is behind    live connection        primary
//	                                              the scripts            no replica is read
//	what an old primary acknowledges              the scripts            an old primary's word, … that forgot all
//	… to who has nothing else to ask              the log                poll
//	an event twice                                client, the scripts    once, dedupe
//	a tenant without an epoch                     the scripts            touch
//	what is kept and not told of                  the scripts            publish
//
// Others have no switch. What breaks without them is the subject of a test, which fails
// then; the search sees some of them, too (*).
//
//	closed by                                            test
//	a look that a broken connection overtakes is void    TestRecoverIsOvertaken
//	a channel that is deaf twice is replaced *           TestDeafChannelIsReplaced
//	what is shared is void while a tenant holds *        Hub.Check, after each step
//	… and is joined only where nothing is missing        TestTails, TestForgottenBetweenPieces
//	… and ends where a topic was forgotten               TestForgottenMeanwhile
//	a heartbeat's id only when all is covered *          the clients of the search
//	once over subscriptions that overlap *               the clients of the search
//	last events carry no id                              TestLast, TestLastOfTopics
//	a topic's own cursor before a pattern's              TestCursorsOfTopics
//	what is appended too late is left out                TestAppendTooOld, in hub/redislog
//	conflation, and final                                TestOutboxAgainstModel
//
// One hole is known and stays: a slot of a Cluster moves to a node that begins an
// epoch, fails over and loses it, and gives the slot back before anybody has asked
// it. Then the old node finds the slot as it was, and only who was told that an event
// is in that epoch can announce it. The search leaves that out.
//
// There is one channel for a tenant, and no switch between modes; one position for
// all that is live; and nothing is withheld before the outbox: what would go wrong
// with more of these cannot. Raw messages, which the hub brings in, have a search
// of their own in hub/ingest.
package search
