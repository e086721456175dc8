"""The attacks: where each stands, what holds against it, and the tests that execute it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Attack:
    """An attack and its guards.

    Attributes:
        origin: Where the attacker stands.
        attack: What the attacker does.
        guard: What holds.
        tests: Node ids of pytest that execute it, without parameters.
    """

    origin: str
    attack: str
    guard: str
    tests: tuple[str, ...]


_DEPLOYMENT = "tests/attacks/test_deployment.py::"
_WEBSITE, _USER, _NODE = "a website", "another user of the machine", "a node"
_STRANGER = "a stranger's file"
_PHOTO, _OPERATOR, _REQUEST = "a photo", "a user of Airflow", "an erasure that is incomplete"

ATTACKS = (
    Attack(
        _WEBSITE,
        "shows a photo that holds HTML as a page of the emulator, whose script starts a cluster with a command",
        "every request is signed; none with an `Origin`; `Content-Security-Policy: sandbox` on every reply",
        (
            _DEPLOYMENT + "test_a_page_and_a_poisoned_photo_start_no_cluster",
            "tests/local_aws/test_attacks.py::test_a_poisoned_photo_is_no_page",
            "tests/local_aws/test_attacks.py::test_every_reply_forbids_a_browser_to_run_it",
        ),
    ),
    Attack(
        _WEBSITE,
        "rebinds its name to 127.0.0.1 and asks the Airflow of the demo for a token",
        "an API server of this machine answers to its own names; the demo's user has a random password",
        (
            "tests/plugins/report/test_web.py::test_a_server_of_this_machine_answers_to_its_own_names",
            "tests/dev/demo/test_airflow.py::test_nobody_is_an_admin_without_a_password",
        ),
    ),
    Attack(
        _WEBSITE,
        "rebinds its name to the address of a YARN cluster of the emulator and submits a command",
        "YARN takes no application over HTTP",
        ("tests/local_aws/test_yarn.py::test_no_web_page_that_rebinds_its_name_submits_a_command",),
    ),
    Attack(
        _USER,
        "calls the emulator with a guessed key, without one, or with a signed URL from its log",
        "SigV4 is verified against a key that is random at each start; the access log hides signatures",
        (
            _DEPLOYMENT + "test_another_user_of_the_machine_starts_no_cluster",
            "tests/local_aws/test_attacks.py::test_another_user_of_this_machine_who_has_no_key_gets_nothing",
            "tests/local_aws/test_attacks.py::test_a_presigned_url_in_the_access_log_opens_nothing",
            "tests/local_aws/test_attacks.py::test_motos_own_pages_are_gone",
        ),
    ),
    Attack(
        _USER,
        "fills the disk of the emulator with bodies of requests, under a made-up signature",
        "no large body is read without the id of one of our keys, which no other user knows",
        ("tests/local_aws/test_attacks.py::test_the_body_of_a_page_or_without_a_key_is_refused_before_it_is_sent",),
    ),
    Attack(
        _PHOTO,
        "takes over its decoder and asks for the role of the node, files, the network or a shell",
        "decoding has a process of its own without credentials; the kernel ends it at any other system call",
        (
            _DEPLOYMENT + "test_a_decoder_that_is_taken_over_gets_no_credentials_and_sends_nothing",
            "tests/spark_jobs/images/test_sandbox.py::test_a_confined_process_that_asks_for_more_is_ended",
            "tests/spark_jobs/images/test_sandbox.py::test_it_has_no_credentials_no_open_files_and_one_thread",
            "tests/spark_jobs/images/test_sandbox.py::test_load_images_decodes_nowhere_else",
            "tests/spark_jobs/images/test_sandbox.py::test_a_notebook_decodes_nowhere_else",
        ),
    ),
    Attack(
        _PHOTO,
        "replies from a decoder that it has taken over, or ends it, to stop the night or to poison a table",
        "the reply has a fixed form with bounds, its raw pixels are encoded outside; one photo is rejected",
        (
            "tests/spark_jobs/images/test_sandbox.py::test_what_it_replies_once_it_is_taken_over_is_checked",
            "tests/spark_jobs/images/test_sandbox.py::test_a_photo_that_ends_it_is_a_reject_and_the_next_one_is_loaded",
            "tests/spark_jobs/images/test_sandbox.py::test_a_confined_process_takes_no_more_memory_than_its_limit",
        ),
    ),
    Attack(
        _NODE,
        "writes run.json, residency.json, reports, presentations, receipts, code or models",
        "the role of the nodes writes the files of its stages, by name",
        (
            _DEPLOYMENT + "test_a_node_may_not_write_what_the_control_plane_says",
            "tests/infra/test_simulation.py::test_what_a_role_may_not",
        ),
    ),
    Attack(
        _NODE,
        "replaces results of another run, so that `make share` signs them for outsiders",
        "the verdict records digests; a later difference shows, and is not signed",
        (
            _DEPLOYMENT + "test_forged_results_are_shown_as_changed_and_never_shared",
            "tests/plugins/records/test_sharing.py::test_a_nodes_file_without_a_recorded_digest_is_not_shared",
            "tests/plugins/records/test_digests.py::test_an_erasure_does_not_bless_a_forged_file",
        ),
    ),
    Attack(
        _NODE,
        "leaves a malformed or late-dated run.json that stops every following night",
        "one bounded reader of records; a bad one is left out and named on the page of its run",
        (
            _DEPLOYMENT + "test_no_malformed_record_stops_the_next_night",
            "tests/plugins/runs/test_forecast.py::test_no_name_of_a_folder_keeps_a_forged_record_among_the_latest",
        ),
    ),
    Attack(
        _NODE,
        "leaves files of a kilobyte that become gigabytes in the API server, or pages of 50 MB",
        "limits of rows, sizes and memory; the sample is decoded in a process of its own; pages have 2 MB at most",
        (
            _DEPLOYMENT + "test_bombs_in_a_runs_folder_make_a_small_page_in_little_memory",
            "tests/plugins/records/test_sample.py::"
            "test_a_file_that_cannot_be_decoded_within_the_limits_is_refused_with_the_reason",
            "tests/plugins/report/test_hostile.py::test_no_json_of_a_megabyte_makes_a_page_of_more_than_two",
        ),
    ),
    Attack(
        _NODE,
        "leaves a log of megabytes that inflates to gigabytes",
        "gzip is inflated in pieces with a limit, in one place",
        (
            _DEPLOYMENT + "test_a_log_that_inflates_to_gigabytes_shows_its_end_in_little_memory",
            "tests/plugins/storage/test_inflate.py::test_a_bomb_is_refused_at_the_limit_and_takes_little_memory",
        ),
    ),
    Attack(
        _NODE,
        "puts markup into labels, errors and file names that a report shows",
        "every text is escaped; the pages forbid scripts other than their own",
        (
            "tests/plugins/report/test_hostile.py::test_hostile_text_is_only_text_wherever_it_comes_from",
            "tests/plugins/report/test_web.py::test_every_answer_forbids_what_the_page_does_not_need",
        ),
    ),
    Attack(
        _NODE,
        "of a notebook reads raw photos or deletes rows of production",
        "notebook clusters have a role of their own",
        (_DEPLOYMENT + "test_a_notebook_reads_no_photo_and_writes_no_row_of_production",),
    ),
    Attack(
        _NODE,
        "of a notebook submits a job to the YARN of a night, for the rights of the night's nodes",
        "notebook clusters have security groups of their own; where they would share the nights', none is started",
        (
            _DEPLOYMENT + "test_no_rule_lets_a_notebooks_node_reach_a_node_of_a_night",
            "tests/ops/test_notebook.py::test_where_it_would_share_groups_with_the_nights_it_is_refused",
        ),
    ),
    Attack(
        _NODE,
        "of a notebook has an erasure delete files of production, by a table of its own that refers to them",
        "an erasure refuses a table that refers to anything outside its own folder",
        (
            "tests/spark_jobs/test_erase_images.py::"
            "test_a_notebooks_table_that_took_files_of_production_does_not_have_them_deleted",
            "tests/spark_jobs/test_erase_images.py::"
            "test_a_notebooks_table_that_claims_the_folder_of_production_does_not_have_it_cleared",
        ),
    ),
    Attack(
        _NODE,
        "of a notebook has an erasure run SQL with the rights of a node, by a text or a column's name in a table",
        "no text of a table is a part of a statement",
        ("tests/spark_jobs/test_erase_images.py::test_no_text_that_a_notebook_writes_is_run_as_sql",),
    ),
    Attack(
        _NODE,
        "of a notebook has whoever reads its table run Python of its choice, or send requests to its server",
        "`fruits_lake` takes no code, server or key from a table's properties, and no file from outside its folder",
        (
            "tests/fruits_lake/test_lake.py::test_no_property_of_a_table_chooses_code_or_a_server",
            "tests/fruits_lake/test_lake.py::test_a_file_outside_its_table_is_not_read",
            "tests/fruits_lake/test_lake.py::test_no_file_of_a_table_is_outside_the_bucket",
        ),
    ),
    Attack(
        _STRANGER,
        "gives away a lake whose links lead to files of its reader, or whose files have no end",
        "a folder with links, pipes or devices is not opened; the memory of `make recognise` has a limit",
        (
            "tests/fruits_lake/test_lake.py::test_a_folder_with_a_link_or_a_pipe_is_not_opened",
            "tests/fruits_lake/test_lake.py::test_no_link_and_no_name_in_a_folder_leads_out_of_it",
            "tests/fruits_lake/test_lake.py::test_a_small_file_that_holds_more_than_the_memory_is_an_error",
        ),
    ),
    Attack(
        _STRANGER,
        "gives away weights that put a file of their reader into the model, and so into the lake",
        "an array of a weights file is in that file, and has a limit",
        (
            "tests/spark_jobs/model/test_keras_reference.py::"
            "test_a_weights_file_reads_no_other_file_and_fills_no_memory",
        ),
    ),
    Attack(
        _PHOTO,
        "makes every night red, or stops the notebook, by the name of its folder",
        "labels are cut in metrics to what their reader takes; to a figure they are text",
        (
            "tests/spark_jobs/classifier/test_evaluation.py::"
            "test_labels_as_long_as_the_key_of_an_object_stay_within_the_size_of_the_metrics",
        ),
    ),
    Attack(
        _PHOTO,
        "commands a terminal, or adds lines of its own to a notice, by its name or by what its error says",
        "what is not printable is written out; the cause of a notice is one line",
        (
            "tests/fruits_lake/test_lake.py::test_no_name_of_a_photo_commands_the_terminal",
            "tests/plugins/runs/test_notices.py::test_no_cause_adds_a_line_of_its_own_to_a_notice",
        ),
    ),
    Attack(
        _NODE,
        "leaves a file that `fruits_lake` takes for the run.json of a run, or that stops its list of runs",
        "only the file that no node may write is the run's; a file of another form makes its run `unreadable`",
        ("tests/fruits_lake/test_lake.py::test_no_file_of_a_node_stands_for_a_run_or_hides_the_others",),
    ),
    Attack(
        _NODE,
        "leaves a Parquet file that stops every erasure, and every export for a person",
        "whatever is wrong with a file, it counts as unreadable; no name of a node's is a name of a file",
        (
            "tests/plugins/erasure/test_request.py::test_two_columns_of_one_name_do_not_stop_an_erasure",
            "tests/plugins/records/test_digests.py::test_no_form_of_a_record_stops_an_erasure",
            "tests/plugins/erasure/test_subject_access.py::"
            "test_no_name_that_a_node_chooses_leads_out_of_the_folder_or_stops_the_export",
            "tests/plugins/erasure/test_subject_access.py::"
            "test_a_file_that_no_job_writes_is_named_and_does_not_stop_the_export",
        ),
    ),
    Attack(
        _NODE,
        "sends what it reads to a bucket of its own through the S3 endpoint; or is reached from outside",
        "the endpoint's policy names buckets; no security group lets anyone in",
        (
            _DEPLOYMENT + "test_the_network_of_the_stack_lets_nobody_in_and_leads_to_its_own_buckets",
            "tests/infra/test_simulation.py::test_an_endpoint_leads_to_what_is_ours",
            "tests/infra/test_template.py::test_each_endpoint_has_a_policy",
        ),
    ),
    Attack(
        _OPERATOR,
        "erases everything with one request",
        "the number of the plan confirms it, a setting caps it, empty objects of folders stay",
        (
            _DEPLOYMENT + "test_an_erasure_is_confirmed_by_its_number_and_leaves_no_name_in_any_spelling",
            "tests/plugins/erasure/test_request.py::test_more_photos_than_the_settings_allow_are_refused",
            "tests/plugins/erasure/test_request.py::test_what_goes_along_by_equal_content_is_named_beforehand",
            "tests/plugins/erasure/test_request.py::test_an_empty_object_has_no_content_and_a_folder_is_no_photo",
        ),
    ),
    Attack(
        _OPERATOR,
        "raises the cost ceiling in the form",
        "the settings bound the form, and `plan` checks again",
        ("tests/plugins/config/test_run_parameters.py::test_the_form_cannot_raise_the_ceiling_of_the_settings",),
    ),
    Attack(
        _OPERATOR,
        "edits results of tasks or chooses a run id, to raise the ceiling, pass the gates, or have a night run what a "
        "notebook wrote",
        "a plan is used only as the lake keeps it, where nobody edits it; the ceiling is that of the settings; a page "
        "shows what it can, and makes no objects",
        (
            "tests/plugins/runs/test_plan.py::test_no_edited_plan_raises_the_ceiling_of_the_settings",
            "tests/plugins/runs/test_plan.py::test_whoever_edits_the_plan_has_nothing_run_by_it",
            "tests/plugins/runs/test_plan.py::test_a_plan_that_no_task_has_kept_is_not_used",
            "tests/plugins/runs/test_plan.py::test_no_digest_chooses_code_that_no_task_has_uploaded",
            "tests/plugins/runs/test_verdict.py::test_an_edited_plan_is_red_and_its_fingerprint_is_not_published",
            "tests/plugins/report/test_live_run.py::test_a_result_that_names_a_class_makes_no_object_of_it",
            "tests/plugins/runs/test_planning.py::test_no_run_works_in_a_folder_that_a_notebook_may_write",
            "tests/plugins/report/test_web.py::test_a_forged_result_of_plan_leaves_a_page_that_says_so",
        ),
    ),
    Attack(
        _OPERATOR,
        "edits results of tasks, so that an erasure works on another database and its receipt says that all is gone",
        "a receipt is written from the plan and the counts that the lake keeps",
        (
            "tests/plugins/erasure/test_tasks.py::test_whoever_edits_results_of_tasks_writes_nothing_into_a_receipt",
            "tests/plugins/erasure/test_tasks.py::test_a_task_that_was_marked_as_success_is_in_no_receipt",
        ),
    ),
    Attack(
        _OPERATOR,
        "takes the credentials of the deployer from a container",
        "one service sees the profile and hands out credentials of an hour; the keys of a user never",
        (
            "tests/compose/test_files.py::test_the_home_folder_of_aws_is_seen_by_the_service_of_credentials_only",
            "tests/compose/test_credentials.py::test_keys_of_a_user_are_not_handed_out",
        ),
    ),
    Attack(
        _REQUEST,
        "a name stays in a log, an error or a record because it is spelled another way",
        "jobs name photos by id; the erasure reads every spelling; the receipt looks again",
        (
            _DEPLOYMENT + "test_an_erasure_is_confirmed_by_its_number_and_leaves_no_name_in_any_spelling",
            "tests/plugins/erasure/test_request.py::test_a_key_in_every_spelling_goes_from_everything_that_is_written",
            "tests/plugins/erasure/test_tasks.py::test_while_a_log_spells_the_key_there_is_no_receipt",
            "tests/spark_jobs/test_erase_images.py",
        ),
    ),
    Attack(
        _REQUEST,
        "a copy stays in scratch space under another name",
        "an erasure empties `staging/`, and writes no receipt while something is there",
        (
            "tests/plugins/erasure/test_request.py::test_scratch_copies_go_whatever_their_names",
            "tests/plugins/erasure/test_tasks.py::"
            "test_the_plan_says_that_scratch_goes_and_there_is_no_receipt_while_it_is_there",
        ),
    ),
    Attack(
        _REQUEST,
        "an export for its person can be read by others, or lies about its type",
        "the folder is its owner's alone; files are named by what they hold",
        (
            "tests/plugins/erasure/test_subject_access.py::"
            "test_only_its_owner_can_enter_the_folder_and_files_are_named_by_their_content",
        ),
    ),
    Attack(
        "a supplier",
        "ships a library with a known hole, or other bytes than were locked",
        "locks with checksums, advisories checked, a list of parts for each environment",
        (
            "tests/infra/test_sbom.py::test_make_sbom_covers_every_lock_and_make_lock_resolves_each",
            "tests/infra/test_supply.py",
        ),
    ),
)
