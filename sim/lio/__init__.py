"""LIO, the kernel's SCSI target: from a CDB to data, status, sense and residual.

    command    a command as it travels: struct vhost_scsi_cmd with its se_cmd
    segments   its data buffer, scattered over guest memory
    lun        a LUN's state: flags, limits, nexuses, unit attentions
    pages      INQUIRY and VPD bytes, made once per LUN
    ports      targets and their LUNs; builds all of it as words of the state array
    parse      sbc_parse_cdb(), spc_parse_cdb(): what a CDB asks for and how long its data is
    spc, sbc   the primary and the block commands that the target emulates
    reserve    RESERVE and RELEASE, persistent reservations
    server     the two calls a fabric makes: prepare (target_submit_prep) and execute

Behaviour follows drivers/target of Linux 6.1 to 7.2; SPC-4 and SBC-3 give the layouts. The state of
a LUN is a stretch of int64 words, constant bytes are packed eight to a word.
"""
