"""What a round's metrics mean: one line for each name, or for names that follow a pattern (``*``: anything)."""

from __future__ import annotations

import re
from collections.abc import Sequence

GAME = "The game"
HELD_OUT = "Held-out notes"
ALARMS = "Alarms"
TRAINING = "Training, measured by verl"
TIME = "Time and memory"

MEANINGS: dict[str, tuple[tuple[str, str], ...]] = {
    HELD_OUT: (
        ("val/{greedy,sampled}/balanced_accuracy", "mean of the two recalls; guessing gives 0.5"),
        ("val/{greedy,sampled}/accuracy", "share of right verdicts; a reply without one counts as wrong"),
        ("val/{greedy,sampled}/{accuracy,balanced_accuracy}_parsed", "the same, only over the replies with a verdict"),
        ("val/{greedy,sampled}/recall_correct", "share of the correct texts that are called CORRECT"),
        ("val/{greedy,sampled}/recall_incorrect", "share of the texts with an error that are called INCORRECT"),
        ("val/{greedy,sampled}/mcc", "Matthews correlation of verdict and label, -1 to 1; guessing gives 0"),
        (
            "val/{greedy,sampled}/auc",
            "how often a text with an error gets a higher p(INCORRECT) than one without; guessing gives 0.5",
        ),
        (
            "val/{greedy,sampled}/always_one_answer_rate",
            "share of the more frequent verdict; 1: all texts get the same",
        ),
        ("val/{greedy,sampled}/parse_failure_rate", "share of the replies without a verdict"),
        ("val/{greedy,sampled}/strict_rate", "share of the replies in the strict form that the format bonus needs"),
        (
            "val/{greedy,sampled}/recall_incorrect_{covered,uncovered}",
            "recall_incorrect of the errors whose exact change has, or has not, been made in play",
        ),
        ("val/covered_rate", "share of the held-out errors whose exact change has been made in play"),
        ("val/texts_{correct,incorrect}", "how many texts of each label were judged"),
    ),
    GAME: (
        ("vcf_acceptance_rate", "share of the injector's attempts that the change filter (VCF) accepted"),
        ("vcf_acceptance_rate/{benign,error}", "the same, by what was asked for"),
        ("vcf_acceptance_rate/attempt_*", "the same, by attempt"),
        ("vcf_game_acceptance_rate", "share of the games in which some attempt was accepted"),
        ("vcf_game_acceptance_rate/{benign,error}", "the same, by what was asked for"),
        ("vcf_attempts", "attempts of the round"),
        ("vcf_rejections/*", "attempts that were rejected for this reason"),
        ("games", "notes that the injector edited in the round"),
        ("games_decisive", "games that ended with an accepted edit and a label"),
        ("trajectories", "replies of both roles in the round, whether they are trained on or not"),
        ("mean_reward", "mean reward of all trajectories that were scored; near 0, as the game is zero-sum"),
        ("mean_reward/{injector,assessor}", "mean reward of a role; the two mirror each other"),
        ("injector/win_rate", "share of the decisive games in which the assessor was wrong"),
        ("injector/contradiction_rate", "share of the decisive games whose edit did the opposite of what was asked"),
        ("label_inversion_rate", "share of the games whose label, by the referee, is not what was asked for"),
        ("label_inversion_rate/second_referee", "the same, by the second referee"),
        ("{injector,assessor}/parse_failure_rate", "share of the replies that could not be read"),
        ("{injector,assessor}/strict_rate", "share of the replies in the strict form that the format bonus needs"),
        ("{injector,assessor}/response_tokens", "mean number of tokens in a reply"),
        ("{injector,assessor}/response_words", "mean number of words in a reply"),
        ("{injector,assessor}/thinking_tokens", "mean number of tokens in a reply's reasoning"),
        ("{injector,assessor}/thinking_words", "mean number of words in a reply's reasoning"),
        (
            "{assessor,labelled,replayed}/balanced_accuracy",
            "mean of the two recalls, in the games, on gold-labelled notes, on questions asked again",
        ),
        ("{assessor,labelled,replayed}/accuracy", "share of right verdicts"),
        (
            "{assessor,labelled,replayed}/{accuracy,balanced_accuracy}_parsed",
            "the same, only over the replies with a verdict",
        ),
        ("{assessor,labelled,replayed}/recall_correct", "share of the correct texts that are called CORRECT"),
        ("{assessor,labelled,replayed}/recall_incorrect", "share of the texts with an error that are called INCORRECT"),
        ("{assessor,labelled,replayed}/mcc", "Matthews correlation of verdict and label, -1 to 1"),
        ("{assessor,labelled,replayed}/always_one_answer_rate", "share of the more frequent verdict"),
        ("labelled/games", "gold-labelled texts of the round"),
        ("replayed/games", "texts of earlier rounds, edits and originals, that were asked about again"),
        ("{labelled,replayed}/parse_failure_rate", "share of the replies to them that could not be read"),
        ("{labelled,replayed}/strict_rate", "share of the replies to them in the strict form"),
        ("{labelled,replayed}/mean_reward", "mean reward on them"),
        ("edit/word_edits", "mean number of words that an accepted edit changed"),
        ("edit/jaccard", "mean similarity of an accepted edit to its original (3-gram shingles)"),
        ("edit/position", "mean position of the edited sentence in its note, from 0 (first) to 1 (last)"),
        ("edit/distinct", "distinct changes (words out, words in) among the round's accepted edits"),
        ("edit/novel_rate", "share of the accepted edits whose change was not made in the last 20 rounds"),
        ("edit/errors_so_far", "distinct changes so far in the run that the referee called errors"),
        ("edit/table_coverage", "ward only: share of the table's wrong facts that these changes have used"),
        ("referee/void_rate", "share of the accepted edits that the referee could not decide"),
        ("referee/lossy_rate", "share of the accepted edits that only took something away"),
        ("referee/unchecked_rate", "share of the labels that are simply what was asked for, which nobody checked"),
        ("referee/failed_rate", "share of the accepted edits about which the referee could not be asked"),
    ),
    ALARMS: (("alarm/*", "1 in a round that raises this alarm, else 0 (medserl.alarms)"),),
    TRAINING: (
        ("medserl/optimizer_steps", "optimizer steps of the round"),
        ("medserl/trained_trajectories", "trajectories that were trained on"),
        ("medserl/left_out/{injector,assessor}", "1 if a role was left out because its outcomes hardly differed"),
        ("actor/reward_kl_penalty", "KL to the reference per token, nats (k1 estimate, as in the reward)"),
        ("actor/reward_kl_penalty_coeff", "coefficient of the KL in the reward"),
        ("actor/entropy", "entropy of the policy per token, nats"),
        ("actor/entropy_loss", "the same as actor/entropy"),
        ("actor/grad_norm", "norm of the gradient before clipping, mean over the round's steps"),
        ("actor/lr", "learning rate"),
        ("actor/{loss,pg_loss}", "loss of the policy gradient"),
        ("actor/pg_clipfrac", "share of the tokens whose ratio was clipped"),
        ("actor/pg_clipfrac_lower", "share of the tokens that dual clipping affected"),
        ("actor/ppo_kl", "KL between the policy before and after the round's steps, per token"),
        (
            "critic/{score,rewards,advantages,returns}/{mean,min,max}",
            "of the trajectories, before and after the KL term",
        ),
        (
            "critic/values/{mean,min,max}",
            "a critic's values of the tokens (algorithm.adv_estimator=gae)",
        ),
        ("critic/vf_explained_var", "share of the returns' variance that the values explain; 1 is best"),
        ("critic/{loss,vf_loss}", "half the squared distance of the values to the returns, clipped"),
        ("critic/vf_clipfrac", "share of the values whose change was clipped"),
        ("critic/vpred_mean", "mean of the values during the update"),
        ("critic/grad_norm", "norm of the critic's gradient before clipping, mean over its steps"),
        ("critic/lr", "the critic's learning rate"),
        ("training/rollout_actor_probs_pearson_corr", "correlation of vLLM's probabilities and the trainer's; near 1"),
        ("training/rollout_probs_diff_*", "difference between these probabilities"),
        ("rollout_corr/*", "the same difference as perplexities, KL and chi-squared"),
        ("training/{epoch,global_step}", "passes over the notes, and the round"),
        ("training/num_turns/*", "the same as num_turns"),
        ("training/off_policy/*", "age of the weights that made a trajectory: 0, because training is on-policy"),
        ("num_turns/*", "turns of a game"),
        ("{prompt_length,response_length,response_length_non_aborted}/*", "tokens; clip_ratio: share at the limit"),
        ("response/aborted_ratio", "share of the replies that vLLM aborted"),
        ("global_seqlen/*", "tokens of a worker's share of the round, before and after balancing"),
    ),
    TIME: (
        ("timing_s/gen", "seconds: playing the games"),
        ("timing_s/old_log_prob", "seconds: log-probabilities of the policy"),
        ("timing_s/ref", "seconds: log-probabilities of the reference"),
        ("timing_s/values", "seconds: the critic's values"),
        ("timing_s/adv", "seconds: rewards and advantages"),
        ("timing_s/update_critic", "seconds: updating the critic"),
        ("timing_s/update_actor", "seconds: updating the policy"),
        ("timing_s/update_weights", "seconds: sending the weights to vLLM"),
        ("timing_s/step", "seconds: the whole round"),
        ("timing_s/validate", "seconds: judging the held-out notes"),
        ("timing_s/*", "seconds of another part"),
        ("timing_per_token_ms/*", "milliseconds per token of a phase"),
        ("perf/tokens_per_second", "tokens that were generated, per second of the whole round"),
        ("perf/rollout_tokens_per_second", "tokens that were generated, per second of playing"),
        ("perf/generated_tokens", "tokens that were generated"),
        ("perf/throughput", "tokens of all trajectories, prompts included, per second and worker"),
        ("perf/total_num_tokens", "tokens of all trajectories, prompts included"),
        ("perf/time_per_step", "the same as timing_s/step"),
        ("perf/mfu/*", "share of the device's peak arithmetic that a phase used"),
        ("{actor,critic}/perf/*", "memory of a worker, GB"),
        ("epoch", "passes over the notes"),
    ),
}


def meaning(metric: str) -> str | None:
    """What a metric means; ``None`` for a name that is not listed, such as a user's own."""
    for group in MEANINGS.values():
        for name, text in group:
            if _pattern(name).fullmatch(metric):
                return text
    return None


def unknown(metrics: Sequence[str]) -> list[str]:
    """Names that nothing is said about."""
    return [name for name in metrics if meaning(name) is None]


def _pattern(name: str) -> re.Pattern[str]:
    escaped = re.escape(name).replace(r"\*", ".+")
    return re.compile(re.sub(r"\\\{(.*?)\\\}", lambda found: "(" + found[1].replace(",", "|") + ")", escaped))
